"""The diffusion models' U-Net: sizes and cost of the published settings, attention, names of released weights."""

import math
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hepipe.errors import WeightsError
from hepipe.networks.adm import AdmUnet, Attention, GroupNorm, adm_state, embed_times, init_as_released

ADM_256 = {"inputs": 3, "width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "attention_factors": (8, 16, 32)}
DEFAULT = {"inputs": 6, "width": 128, "multipliers": (1, 1, 2, 2, 4, 4), "attention_factors": (16, 32)}
RELEASED = {"inputs": 6, "width": 128, "multipliers": (1, 4, 8)}

# Parameters to the million and, by side, TFLOP a forward of one tile, as the specifications state them.
COST = [
    ({**ADM_256, "multipliers": (0.5, 1, 1, 2, 2, 4, 4), "attention_factors": (16, 32, 64)}, 558, {512: 3.97}),
    (ADM_256, 553, {256: 2.24, 512: 9.10}),
    ({**DEFAULT, "multipliers": (0.5, 1, 1, 2, 2, 4, 4), "attention_factors": (16, 32, 64)}, 140, {512: 1.00}),
    (DEFAULT, 137, {512: 2.23}),
    ({"inputs": 6, "width": 64, "multipliers": (1, 2, 2, 4, 4, 4), "attention_factors": (32,)}, 43, {512: 0.96}),
    (RELEASED, 237, {512: 16.9, 128: 0.99, 64: 0.25}),
]


def small(**options):
    """A network of both kinds of level, its ends no longer zero."""
    settings = {"inputs": 3, "outputs": 3, "width": 8, "multipliers": (1, 2), "blocks": 1, "attention_factors": (2,)}
    torch.manual_seed(3)
    network = AdmUnet(**{**settings, "head_channels": 8, "groups": 4, **options})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return network


@pytest.mark.parametrize(("settings", "million", "tera"), COST)
def test_networks_have_the_size_and_cost_of_the_specification(settings, million, tera):
    with torch.device("meta"):
        network = AdmUnet(outputs=3, **settings)
        assert round(sum(parameter.numel() for parameter in network.parameters()) / 1e6) == million
        for side, expected in tera.items():
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(torch.zeros(1, settings["inputs"], side, side), torch.zeros(1))
            assert counter.get_total_flops() / 1e12 == pytest.approx(expected, rel=0.01), side


def test_a_time_is_its_cosines_then_its_sines_and_a_zero_where_the_size_is_odd():
    embedded = embed_times(torch.tensor([0.0, 7.0]), 5)
    slow = 7 * math.exp(-math.log(10_000) / 2)
    expected = [[1, 1, 0, 0, 0], [math.cos(7), math.cos(slow), math.sin(7), math.sin(slow), 0]]
    torch.testing.assert_close(embedded, torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0)


def test_attention_is_softmax_of_the_products_of_queries_and_keys():
    torch.manual_seed(0)
    attention = Attention(12, heads=3, groups=4)
    with torch.no_grad():
        attention.out.weight.normal_()
    x = torch.randn(2, 12, 3, 5)
    places = attention.norm(x).flatten(2).mT
    mixed = []
    for head in range(3):
        # Channels are [q|k|v][head][d].
        q, k, v = (
            places @ attention.qkv.weight[part * 12 + head * 4 :][:4].T + attention.qkv.bias[part * 12 + head * 4 :][:4]
            for part in range(3)
        )
        mixed.append(torch.softmax(q @ k.mT / 2.0, -1) @ v)
    expected = x + (torch.cat(mixed, -1) @ attention.out.weight.T + attention.out.bias).mT.reshape(x.shape)
    torch.testing.assert_close(attention(x), expected)


def test_a_norm_is_evaluated_in_float32_and_takes_the_groups_that_divide_its_channels():
    norm = GroupNorm(24, 32)
    assert norm.num_groups == 8
    x = (torch.randn(1, 24, 4, 4) * 0.01 + 100).to(torch.bfloat16)
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), norm(x.float()).to(torch.bfloat16))


def test_a_fresh_network_is_silent_until_its_weights_are_drawn_as_released():
    network = AdmUnet(inputs=3, outputs=3, width=32, multipliers=(1, 2), blocks=1)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([5])
    assert not network(x, t).any()
    before = network.middle[1].qkv.weight.clone()
    init_as_released(network)
    assert network(x, t).any()
    assert not network.middle[1].out.weight.any()
    assert torch.equal(network.middle[1].qkv.weight, before)
    assert float(network.middle[0].conv2.weight.detach().std()) == pytest.approx(0.02, rel=0.05)


def test_a_network_takes_any_sides_that_its_levels_can_halve():
    network = small()
    assert network(torch.randn(2, 3, 6, 10), torch.tensor([1, 2])).shape == (2, 3, 6, 10)


@pytest.mark.parametrize("options", [{}, {"residual_resampling": False, "scale_shift": False}, {"n_classes": 3}])
def test_a_picture_does_not_see_the_others_of_its_batch(options):
    network = small(**options).eval()
    x, t = torch.randn(3, 3, 8, 8), torch.tensor([0, 3, 900])
    labels = torch.tensor([0, 1, 2]) if "n_classes" in options else None
    together = network(x, t, labels)
    for i in range(3):
        alone = network(x[i : i + 1], t[i : i + 1], None if labels is None else labels[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=1e-5, rtol=0)
    assert (network(x, t + 50, labels) - together).abs().max() > 1e-3


def test_recomputed_levels_give_the_same_output_and_gradients():
    plain, again = small(dropout=0.5), small(dropout=0.5, recompute_levels=1)
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([4, 8])
    outputs = []
    for network in (plain, again):
        torch.manual_seed(1)
        outputs.append(network(x, t))
        outputs[-1].square().mean().backward()
    assert torch.equal(*outputs)
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)


def test_the_output_is_float32_under_autocast_and_near_the_exact_one():
    network, x, t = small(), torch.randn(2, 3, 8, 8), torch.tensor([4, 8])
    exact = network(x, t)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(x, t)
    assert output.dtype == torch.float32
    assert 0 < (output - exact).abs().max() < 0.05 * exact.abs().max()


def test_factors_without_a_level_and_broken_widths_are_refused():
    with pytest.raises(ValueError, match=r"attention_factors \(4,\): the levels have \[1, 2\]"):
        AdmUnet(inputs=3, outputs=3, width=8, multipliers=(1, 2), attention_factors=(4,))
    with pytest.raises(ValueError, match="whole channels at width 9"):
        AdmUnet(inputs=3, outputs=3, width=9, multipliers=(0.5, 1))


def released_state(network, *, head_first):
    """The network's tensors as its authors name, shape and order them."""
    heads = {name: module.heads for name, module in network.named_modules() if isinstance(module, Attention)}
    inside = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time": "emb_layers.1", "norm2": "out_layers.0"}
    inside |= {"conv2": "out_layers.3", "skip": "skip_connection"}
    outside = {"down": "input_blocks", "middle": "middle_block", "up": "output_blocks", "time": "time_embed"}
    outside |= {"head": "out", "label": "label_emb"}
    state = {}
    for name, tensor in network.state_dict().items():
        first, *path = name.split(".")
        owner, (*_, layer, leaf) = name.rsplit(".", 2)[0], name.split(".")
        if owner in heads and layer in ("qkv", "out"):
            if head_first and layer == "qkv":
                tensor = tensor.unflatten(0, (3, heads[owner], -1)).transpose(0, 1).flatten(0, 2)
            tensor = tensor[..., None] if leaf == "weight" else tensor
            path[-2] = {"qkv": "qkv", "out": "proj_out"}[layer]
        elif first == "down" and layer == "conv":
            path[-2] = "op"
        else:
            path = [inside.get(part, part) for part in path]
        state[".".join([outside[first], *path])] = tensor
    return state


@pytest.mark.parametrize("head_first", [True, False])
@pytest.mark.parametrize("options", [{}, {"residual_resampling": False, "n_classes": 2}])
def test_released_weights_load_in_either_order_of_attention_channels(options, head_first):
    network = small(width=16, **options)
    state = released_state(network, head_first=head_first)
    assert any(re.fullmatch(r"input_blocks\.\d+\.1\.qkv\.weight", name) for name in state)
    loaded = adm_state(state, network, qkv_order="head_first" if head_first else "qkv_first")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in network.state_dict().items())


def test_weights_of_another_network_are_listed():
    network = small()
    state = released_state(network, head_first=True)
    state["odd"] = state.pop("out.2.weight")
    with pytest.raises(WeightsError, match=r"ADM U-Net: missing: head\.2\.weight; unexpected: odd"):
        adm_state(state, network)
