import pytest
import torch
from torch import Tensor, nn

from hepipe.errors import WeightsError
from hepipe.networks.blocks import BlurDown, BlurUp
from hepipe.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from hepipe.networks.released import check_tensors, spectral_name, without_prefix
from hepipe.networks.resnet import ResnetGenerator
from hepipe.networks.resunet import ResnetEncoder, ResUnetGenerator, UnetDecoder


def size(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


PUBLISHED = {
    "resnet 9 batch": (lambda: ResnetGenerator(dropout=0.5), 11_383_427),
    "resnet 9 antialiased": (lambda: ResnetGenerator(norm="instance", antialias=True), 11_378_179),
    "resnet 6 antialiased": (lambda: ResnetGenerator(n_blocks=6, norm="instance", antialias=True), 7_837_699),
    "patchgan 6 batch": (lambda: PatchDiscriminator(inputs=6), 2_768_705),
    "patchgan 3 instance": (lambda: PatchDiscriminator(norm="instance"), 2_764_737),
    "patchgan cssp2p": (lambda: PatchDiscriminator(inputs=6, n_layers=4, antialias=True, spectral=True), 6_964_033),
    "patchgan asp": (
        lambda: PatchDiscriminator(width=32, n_layers=5, norm="instance", antialias=True, spectral=True),
        2_791_905,
    ),
    "encoder 50": (ResnetEncoder, 23_454_912),
    "decoder 50": (lambda: UnetDecoder((64, 256, 512, 1024, 2048)), 41_520_707),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_network_has_the_published_number_of_parameters(name: str) -> None:
    build, expected = PUBLISHED[name]
    with torch.device("meta"):
        assert size(build()) == expected


@pytest.mark.parametrize(("side", "logits"), [(256, 30), (512, 62), (1024, 126)])
@pytest.mark.parametrize("antialias", [False, True])
def test_three_layers_of_patchgan_give_the_published_map(side: int, logits: int, antialias: bool) -> None:
    with torch.device("meta"):
        judge = PatchDiscriminator(antialias=antialias)
        assert judge(torch.empty(1, 3, side, side)).shape == (1, 1, logits, logits)


def test_three_layers_of_patchgan_see_seventy_pixels() -> None:
    judge = PatchDiscriminator(width=2).eval()
    x = torch.zeros(1, 3, 128, 128, requires_grad=True)
    judge(x)[0, 0, 6, 6].backward()
    assert x.grad is not None
    rows = torch.nonzero(x.grad.abs().sum((0, 1, 3)))
    assert int(rows.max() - rows.min()) + 1 == 70


def test_a_pixel_discriminator_judges_every_pixel_alone() -> None:
    judge = PixelDiscriminator(width=4).eval()
    x = torch.rand(1, 3, 5, 6)
    torch.testing.assert_close(judge(x)[..., 2:3, 3:4], judge(x[..., 2:3, 3:4]))


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_resnet_generator_keeps_the_size_of_an_oblong_picture(antialias: bool, dropout: float) -> None:
    network = ResnetGenerator(width=2, n_blocks=1, antialias=antialias, dropout=dropout)
    out = network(torch.rand(1, 3, 16, 24))
    assert out.shape == (1, 3, 16, 24)
    assert float(out.detach().abs().max()) <= 1


@pytest.mark.parametrize(("down", "up"), [(True, False), (False, True)])
def test_a_resnet_generator_may_blur_on_one_way_alone(down: bool, up: bool) -> None:
    network = ResnetGenerator(width=2, n_blocks=1, antialias=down, antialias_up=up)
    kinds = [type(layer) for layer in network.model]
    assert (BlurDown in kinds, BlurUp in kinds, nn.ConvTranspose2d in kinds) == (down, up, not up)
    assert network(torch.rand(1, 3, 16, 24)).shape == (1, 3, 16, 24)


def test_the_flat_numbers_of_a_plain_resnet_are_those_of_the_authors() -> None:
    names = set(ResnetGenerator(width=2, n_blocks=2, dropout=0.5).state_dict())
    assert {"model.1.weight", "model.10.conv_block.1.weight", "model.11.conv_block.6.weight"} <= names
    assert {"model.12.weight", "model.15.weight", "model.19.bias"} <= names


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_a_residual_unet_gives_an_oblong_picture_in_the_unit_range(backbone: str) -> None:
    network = ResUnetGenerator(backbone, width=4)
    out = network(torch.rand(1, 3, 32, 48))
    assert out.shape == (1, 3, 32, 48)
    assert 0 <= float(out.detach().min()) <= float(out.detach().max()) <= 1


def common_layout(encoder: ResnetEncoder) -> dict[str, Tensor]:
    """What a ResNet file holds: the convolutions, and norms and a classifier that are to be left out."""
    state = {name: torch.rand_like(tensor) for name, tensor in encoder.state_dict().items()}
    norms = {f"bn1.{leaf}": torch.rand(4) for leaf in ("weight", "bias", "running_mean", "running_var")}
    norms |= {"layer2.0.downsample.1.weight": torch.rand(8), "bn1.num_batches_tracked": torch.tensor(3)}
    return state | norms | {"fc.weight": torch.rand(1000, 8), "fc.bias": torch.rand(1000)}


def test_an_encoder_takes_the_convolutions_of_a_common_resnet_file() -> None:
    encoder = ResnetEncoder("resnet18", width=4)
    state = common_layout(encoder)
    encoder.load_common(state)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def test_an_encoder_names_what_a_foreign_file_lacks_and_has_beside() -> None:
    encoder = ResnetEncoder("resnet18", width=4)
    state = common_layout(encoder)
    del state["layer4.1.conv2.weight"]
    state |= {"layer5.conv1.weight": torch.rand(4, 4, 3, 3), "conv1.weight": torch.rand(4, 3, 3, 3)}
    with pytest.raises(
        WeightsError,
        match=r"file: missing: layer4\.1\.conv2\.weight; unexpected: layer5\.conv1\.weight; "
        r"of another shape: conv1\.weight \(4, 3, 3, 3\) for \(4, 3, 7, 7\)",
    ):
        encoder.load_common(state, source="file")


def test_equal_tensors_pass_the_check() -> None:
    state = {"a": torch.zeros(2)}
    check_tensors(state, {"a": torch.ones(2)}, source="file")


def test_a_prefix_goes_only_when_every_name_has_it() -> None:
    x = torch.zeros(1)
    assert without_prefix({"module.generator.a": x}, "module.", "generator.") == {"a": x}
    assert without_prefix({"module.a": x, "b": x}, "module.").keys() == {"module.a", "b"}


def test_names_of_the_spectral_hook_become_ours() -> None:
    assert [spectral_name(f"model.0.{leaf}") for leaf in ("weight_orig", "weight_u", "weight_v", "bias")] == [
        "model.0.weight",
        "model.0.u",
        "model.0.v",
        "model.0.bias",
    ]
