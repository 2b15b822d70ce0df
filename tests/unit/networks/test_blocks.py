import pytest
import torch
from torch import nn

from hepipe.networks.blocks import BlurDown, BlurUp, SpectralConv2d, has_bias, init_normal, init_xavier, norm_layer


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("side", [7, 8])
def test_blur_down_gives_half_the_side_rounded_up_and_keeps_a_flat_picture(side: int) -> None:
    down = BlurDown()(torch.full((1, 2, side, side), 0.3))
    torch.testing.assert_close(down, torch.full((1, 2, (side + 1) // 2, (side + 1) // 2), 0.3))


def test_the_gain_of_blur_down_multiplies_its_output() -> None:
    x = torch.rand(1, 2, 8, 8)
    torch.testing.assert_close(BlurDown(1 / 16)(x), BlurDown()(x) / 16)


@pytest.mark.parametrize("side", [5, 8])
def test_blur_up_gives_exactly_twice_the_side_and_keeps_a_flat_picture(side: int) -> None:
    up = BlurUp()(torch.full((1, 2, side, side), 0.3))
    torch.testing.assert_close(up, torch.full((1, 2, 2 * side, 2 * side), 0.3))


def test_blur_kernels_are_not_in_a_state_dict() -> None:
    assert not BlurDown().state_dict()
    assert not BlurUp().state_dict()


def test_the_spectral_weight_has_norm_one_after_training_passes() -> None:
    conv = SpectralConv2d(3, 6, 4, padding=1)
    for _ in range(30):
        conv(torch.rand(1, 3, 8, 8))
    assert float(torch.linalg.matrix_norm(conv.normalized_weight().detach().flatten(1), 2)) == pytest.approx(
        1, abs=1e-4
    )


def test_spectral_norm_agrees_with_torchs_hook() -> None:
    theirs = torch.nn.utils.spectral_norm(nn.Conv2d(3, 6, 4, padding=1))
    ours = SpectralConv2d(3, 6, 4, padding=1)
    state = theirs.state_dict()
    ours.load_state_dict(
        {"weight": state["weight_orig"], "bias": state["bias"], "u": state["weight_u"], "v": state["weight_v"]}
    )
    x = torch.rand(2, 3, 8, 8)
    for _ in range(2):
        torch.testing.assert_close(ours(x), theirs(x))
    ours(x).square().mean().backward()
    theirs(x).square().mean().backward()
    torch.testing.assert_close(ours.weight.grad, theirs.weight_orig.grad)


def test_eval_mode_leaves_the_singular_vectors_alone() -> None:
    conv = SpectralConv2d(3, 6, 4).eval()
    before = conv.u.clone()
    conv(torch.rand(1, 3, 8, 8))
    assert torch.equal(conv.u, before)


def test_the_singular_vectors_stay_float32_under_autocast() -> None:
    conv = SpectralConv2d(3, 6, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = conv(torch.rand(1, 3, 8, 8))
    assert (out.dtype, conv.u.dtype, conv.v.dtype) == (torch.bfloat16, torch.float32, torch.float32)


def test_only_batch_norm_makes_the_bias_redundant() -> None:
    assert [has_bias(norm) for norm in ("batch", "instance", "none")] == [False, True, True]
    assert not list(norm_layer("instance", 4).parameters())


@pytest.mark.parametrize(("init", "spread"), [(init_normal, 0.02), (init_xavier, 0.02 * (2 / (100 + 100)) ** 0.5)])
def test_first_weights_have_the_published_spread(init: object, spread: float) -> None:
    network = nn.Sequential(nn.Conv2d(100, 100, 1), nn.BatchNorm2d(100))
    assert callable(init)
    init(network)
    assert float(network[0].weight.detach().std()) == pytest.approx(spread, rel=0.05)
    assert float(network[1].weight.detach().mean()) == pytest.approx(1, abs=0.01)
    assert not network[0].bias.any()


def test_the_gradient_of_instance_norm_does_not_depend_on_the_layout_of_what_comes_back() -> None:
    x = torch.randn(1, 16, 16, 16, dtype=torch.float64, requires_grad=True)
    back = torch.randn(1, 16, 16, 16, dtype=torch.float64)
    output = norm_layer("instance", 16).double()(x)
    plain, last = (
        torch.autograd.grad(output, x, gradient, retain_graph=True)[0]
        for gradient in (back, back.contiguous(memory_format=torch.channels_last))
    )
    torch.testing.assert_close(last, plain)
    centred = output.detach()
    by_hand = back - back.mean((2, 3), keepdim=True) - centred * (back * centred).mean((2, 3), keepdim=True)
    by_hand = by_hand / (x.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(plain, by_hand)
