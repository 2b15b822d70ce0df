import numpy as np
import pytest
import torch

from hepipe.metrics import backbones


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return backbones.EfficientNetLite0().eval()


@pytest.fixture(scope="module")
def tiles():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 36), dtype=np.uint8))


def test_the_network_has_the_public_parameter_names(network):
    names = network.state_dict().keys()
    assert len(names) == 296
    assert {"_conv_stem.weight", "_blocks.1._expand_conv.weight", "_blocks.15._bn2.running_var", "_fc.bias"} <= names
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_652_008


def test_a_tile_has_the_same_features_alone_and_in_a_batch(network, tiles):
    with torch.inference_mode():
        together, alone = network(tiles)[1], network(tiles[1:])[1]
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-5)


def test_a_tile_is_at_no_distance_from_itself(network, tiles):
    with torch.inference_mode():
        taps = network(tiles)[0]
    assert backbones.perceptual_distance(taps, taps).tolist() == [0, 0]
    assert backbones.hash_distance(taps, taps).tolist() == [[0] * 6] * 2


def test_distances_follow_their_definition():
    a, b = torch.tensor([[[[3.0]], [[4.0]]]]), torch.tensor([[[[0.0]], [[2.0]]]])
    assert backbones.perceptual_distance([a], [b]).item() == pytest.approx(0.6**2 + 0.2**2)
    assert backbones.hash_distance([a], [b], threshold=2.5).item() == 0.5


@pytest.mark.parametrize(("side", "kernel", "stride"), [(7, 3, 2), (8, 3, 2), (9, 5, 2), (6, 5, 1)])
def test_padding_keeps_the_ceiling_of_side_over_stride(side, kernel, stride):
    out = backbones.SameConv(1, 1, kernel, stride)(torch.zeros(1, 1, side, side))
    assert out.shape[2:] == (-(-side // stride),) * 2
