"""LPIPS: the networks, and the distance itself. Their trained weights are a user's files; golden cases hold numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from hepipe.errors import ConfigError, WeightsError
from hepipe.metrics.lpips import ROLES, TAPS, Lpips, alexnet_layers, vgg16_layers
from hepipe.specs.training import SelectSpec
from hepipe.training.watch import find_choice

WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}


def states(backbone, seed=0):
    torch.manual_seed(seed)
    layers = alexnet_layers() if backbone == "alex" else vgg16_layers()
    features = {f"features.{name}": value for name, value in layers.state_dict().items()}
    heads = {f"lin{n}.model.1.weight": torch.rand(1, width, 1, 1) for n, width in enumerate(WIDTHS[backbone])}
    return {**features, "classifier.1.weight": torch.zeros(2, 2)}, heads


@pytest.mark.parametrize(("backbone", "count"), [("alex", 2_469_696), ("vgg", 14_714_688)])
def test_the_networks_are_the_convolutions_of_the_published_ones(backbone, count):
    layers = alexnet_layers() if backbone == "alex" else vgg16_layers()
    assert sum(parameter.numel() for parameter in layers.parameters()) == count
    tapped = [layers[place] for place in TAPS[backbone]]
    assert all(isinstance(layer, nn.ReLU) for layer in tapped)
    before = [layers[place - 1].out_channels for place in TAPS[backbone]]
    assert tuple(before) == WIDTHS[backbone]


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_identical_tiles_have_no_distance_and_others_have_the_same_both_ways(backbone):
    features, heads = states(backbone)
    network = Lpips(backbone, features=features, heads=heads)
    one, other = torch.rand(2, 3, 48, 48) * 2 - 1, torch.rand(2, 3, 48, 48) * 2 - 1
    assert network(one, one).tolist() == [0.0, 0.0]
    torch.testing.assert_close(network(one, other), network(other, one))
    assert (network(one, other) > 0).all()
    torch.testing.assert_close(network(one, other)[1:], network(one[1:], other[1:]))


def test_the_distance_is_the_weighted_square_of_unit_features_over_places_and_taps():
    features, heads = states("alex")
    network = Lpips("alex", features=features, heads=heads)
    one, other = torch.rand(1, 3, 40, 40) * 2 - 1, torch.rand(1, 3, 40, 40) * 2 - 1
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    total, x, y = 0.0, (one - shift) / scale, (other - shift) / scale
    for place, layer in enumerate(network.features):
        x, y = layer(x), layer(y)
        if place in TAPS["alex"]:
            number = TAPS["alex"].index(place)
            a, b = x[0].double(), y[0].double()
            a, b = a / a.norm(dim=0), b / b.norm(dim=0)
            total += ((a - b) ** 2 * heads[f"lin{number}.model.1.weight"][0].double()).sum(dim=0).mean().item()
    assert network(one, other).item() == pytest.approx(total, rel=1e-4)


def test_eight_bit_tiles_are_taken_over_the_whole_range():
    features, heads = states("alex")
    network = Lpips("alex", features=features, heads=heads)
    black, white = torch.zeros(1, 3, 32, 32, dtype=torch.uint8), torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    expected = network(torch.full((1, 3, 32, 32), -1.0), torch.full((1, 3, 32, 32), 1.0))
    torch.testing.assert_close(network.of_pictures(black, white), expected)


def test_weights_of_another_network_are_refused_by_their_role():
    features, heads = states("alex")
    with pytest.raises(WeightsError, match="vgg16: not the tensors of LPIPS"):
        Lpips("vgg", features=features, heads=heads)
    with pytest.raises(WeightsError, match="alexnet: not the tensors of LPIPS"):
        Lpips("alex", features=features, heads={})


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("HEPIPE_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("backbone", ["alex", "vgg"])
def test_missing_weights_are_an_error_that_names_files_and_stand_in(no_weights, backbone):
    with pytest.raises(ConfigError) as caught:
        find_choice(SelectSpec(metric=f"lpips_{backbone}"), crop_px=64, where="runs.r.training")
    said = str(caught.value)
    assert said.startswith(f"runs.r.training.select.metric: lpips_{backbone} needs weights that are missing: put ")
    assert "its stand-in is pd_effnetlite0" in said
    assert f"lpips-{backbone}.pth" in said


def test_with_the_weights_of_both_roles_lpips_chooses_a_checkpoint(no_weights, monkeypatch):
    features, heads = states("alex")
    given = dict(zip(ROLES["alex"], (features, heads), strict=True))
    for role, content in given.items():
        torch.save(content, no_weights / f"{role}.pth")
    from hepipe.weights import manifest, store

    mine = {
        name: manifest.Role(
            name, (f"{name}.pth",), store.file_sha256(no_weights / f"{name}.pth"), "me", "mine", "x", {}
        )
        for name in given
    }
    monkeypatch.setattr(store, "role", lambda name: mine[name])
    choice = find_choice(SelectSpec(metric="lpips_alex"), crop_px=64, where="here")
    assert choice is not None
    assert choice.weights == {name: role.sha256 for name, role in mine.items()}
    random = np.random.default_rng(1)
    real, he = (random.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(2))
    near = np.clip(real.astype(int) + 3, 0, 255).astype(np.uint8)
    assert choice.measure(real, he, real) == 0
    assert 0 < choice.measure(near, he, real) < choice.measure(he, he, real)
    assert not choice.higher_is_better
    with pytest.raises(ConfigError, match="lpips_alex needs crops of 32 px, crop_px is 16"):
        find_choice(SelectSpec(metric="lpips_alex"), crop_px=16, where="here")
