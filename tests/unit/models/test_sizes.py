"""Sizes of the published networks, as their specifications state them; counted on the meta device."""

import copy

import pytest
import torch
from torch import nn

from hepipe.models.catalog import catalog
from hepipe.models.method import Average
from hepipe.models.size import forward_gmac, gmac, networks, on_meta, parameters, staining_gmac

PARAMETERS = [
    ("pix2pix", "paper", {}, {"generator": 54_413_955, "discriminator": 2_768_705}),
    ("pix2pix", "paper", {"downs": 7}, {"generator": 41_828_995, "discriminator": 2_768_705}),
    ("pyramid_pix2pix", "paper", {}, {"generator": 11_383_427, "discriminator": 2_768_705}),
    ("cut", "paper", {}, {"generator": 11_378_179, "discriminator": 2_764_737, "heads": 560_384}),
    ("cut", "fastcut", {}, {"generator": 11_378_179, "discriminator": 2_764_737, "heads": 560_384}),
    ("cut_pyramid", "paper", {}, {"generator": 11_378_179, "discriminator": 2_764_737, "heads": 560_384}),
    ("asp", "paper", {}, {"generator": 7_837_699, "discriminator": 2_791_905, "heads": 560_384}),
    ("cssp2p", "paper", {}, {"generator": 64_975_619, "discriminator": 6_964_033}),
    ("cssp2p", "bce", {}, {"generator": 64_975_619, "discriminator": 6_960_961}),
    ("bcistainer", "mod", {}, {"generator": 14_955_338, "discriminator": 1_389_442, "comparator": 2_164_772}),
    ("bcistainer", "ada", {}, {"generator": 16_139_594, "discriminator": 1_389_442, "comparator": 2_164_772}),
    # The specification gives no number for the comparator at 512 px.
    ("bcistainer", "mod", {"full_size": 512}, {"generator": 14_365_002, "discriminator": 1_389_442}),
    ("bcistainer", "ada", {"full_size": 512}, {"generator": 15_549_258, "discriminator": 1_389_442}),
    ("bcistainer", "paper", {}, {"generator": 14_955_338, "discriminator": 1_389_442, "comparator": 2_164_772}),
    (
        "bcistainer",
        "mod",
        {"full_size": 512},
        {"generator": 14_365_002, "discriminator": 1_389_442, "comparator": 1_574_436},
    ),
    ("bcistainer", "ada", {}, {"generator": 16_139_594, "discriminator": 1_389_442, "comparator": 2_164_772}),
    (
        "bcistainer",
        "ada_attention",
        {"full_size": 512},
        {"generator": 15_549_258, "discriminator": 1_389_442, "comparator": 1_574_436},
    ),
]

GMAC = [
    ("pix2pix", "generator", 3, {256: 6.05, 512: 24.2, 1024: 96.8}),
    ("pyramid_pix2pix", "generator", 3, {256: 49.6, 512: 198.2, 1024: 792.8}),
    ("cut", "generator", 3, {256: 64.1, 512: 256.5, 1024: 1026.0}),
    ("cut_pyramid", "generator", 3, {512: 256.5}),
    ("asp", "generator", 3, {512: 198.5, 1024: 794.1}),
    ("asp", "discriminator", 3, {512: 8.0}),
    ("cssp2p", "generator", 3, {512: 531.1, 1024: 2124}),
    ("bcistainer", "generator", 3, {512: 54.0, 1024: 216.1}),
]

# Of one picture; the side of the discriminators' maps of logits.
LOGITS = [
    ("pix2pix", 6, {256: 30, 512: 62, 1024: 126}),
    ("cut", 3, {256: 30, 512: 62, 1024: 126}),
    ("asp", 3, {512: 14}),
    ("cssp2p", 6, {512: 30}),
]


@pytest.mark.parametrize(("model", "preset", "options", "expected"), PARAMETERS)
def test_networks_have_the_parameters_of_the_specification(model, preset, options, expected):
    found = parameters(on_meta(model, preset, **options))
    assert {name: found[name] for name in expected} == expected
    assert found.keys() == expected.keys() or model == "bcistainer"


# Published to the million.
MILLIONS = [("paper", 137), ("fast", 137), ("released", 237), ("half", 43)]


@pytest.mark.parametrize(("preset", "expected"), MILLIONS)
def test_the_bridge_has_the_parameters_of_the_specification(preset, expected):
    assert round(parameters(on_meta("bbdm", preset))["network"] / 1e6) == expected


@pytest.mark.parametrize(("model", "network", "channels", "expected"), GMAC)
def test_a_forward_takes_the_multiply_adds_of_the_specification(model, network, channels, expected):
    part = networks(on_meta(model))[network]
    for side, value in expected.items():
        assert forward_gmac(part, (1, channels, side, side)) == pytest.approx(value, rel=0.01), side


# Of a call at 512 px, TFLOP with two a multiply-add.
TFLOP = [("paper", 2.23), ("released", 16.9), ("half", 0.96)]


@pytest.mark.parametrize(("preset", "expected"), TFLOP)
def test_a_call_of_the_bridges_network_takes_the_operations_of_the_specification(preset, expected):
    network = networks(on_meta("bbdm", preset))["network"]
    assert forward_gmac(network, (1, 6, 512, 512), (1,)) * 2e-3 == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("side", "expected"), [(512, 54.0), (1024, 216.1)])
def test_bcistainer_takes_the_multiply_adds_of_the_specification(side, expected):
    assert staining_gmac(on_meta("bcistainer", "mod", full_size=side), side) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(("model", "channels", "expected"), LOGITS)
def test_a_discriminator_gives_a_map_of_the_side_of_the_specification(model, channels, expected):
    judge = networks(on_meta(model))["discriminator"]
    for side, logits in expected.items():
        assert judge(torch.empty(1, channels, side, side, device="meta")).shape == (1, 1, logits, logits)


@pytest.mark.parametrize("model", sorted(catalog()))
def test_every_preset_of_every_model_is_built_without_memory(model):
    for preset in catalog()[model].presets:
        method = on_meta(model, preset)
        assert {p.device.type for p in method.parameters()} <= {"meta"}
        assert all(count > 0 for count in parameters(method).values())


@pytest.mark.parametrize("model", ["pix2pix", "cut", "asp", "cssp2p"])
def test_staining_a_tile_takes_one_pass_of_the_generator(model):
    method = on_meta(model, "small")
    assert staining_gmac(method, 128) == forward_gmac(networks(method)["generator"], (1, 3, 128, 128)) > 0


def test_every_pass_of_a_sampler_counts_though_equal_ones_run_once():
    few, many = (staining_gmac(on_meta("bbdm", "tiny", steps=steps), 64) for steps in (3, 12))
    assert many == pytest.approx(4 * few)
    assert few > 0


def test_the_copy_that_an_average_keeps_is_no_network_of_its_own():
    method = on_meta("pix2pix", "tiny")
    before = parameters(method)
    method.slow = copy.deepcopy(method.generator)
    assert "slow" in parameters(method)
    method.averages = lambda: {"slow": Average("generator", method.generator, method.slow, lambda at: 0.9)}
    assert parameters(method) == before


def test_a_product_counts_one_multiply_add_for_each_of_its_terms():
    a, b = torch.empty(1000, 2000, device="meta"), torch.empty(2000, 500, device="meta")
    assert gmac(lambda: a @ b) == 1.0
    convolution = nn.Conv2d(4, 10, 5, padding=2, groups=2, bias=False, device="meta")
    assert forward_gmac(convolution, (1, 4, 100, 100)) == pytest.approx(10 * 2 * 25 * 1e4 / 1e9)
