import numpy as np
import pytest
from registration_drawing import MPP, as_slides, partner, stain, turn

from hepipe.errors import WeightsError
from hepipe.geometry import apply_affine
from hepipe.registration.keypoints import match_starts
from hepipe.registration.overview import features, read_pictures
from hepipe.registration.score import Judge
from hepipe.registration.search import choose_start
from hepipe.specs.registration import SearchSpec

torch = pytest.importorskip("torch")

from hepipe.registration import aliked  # noqa: E402 (needs torch)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return aliked.Aliked().eval()


def test_a_deformable_convolution_whose_taps_stay_is_a_plain_one():
    torch.manual_seed(1)
    layer = aliked._Deformable(3, 4)
    torch.nn.init.zeros_(layer.offset_conv.weight)
    torch.nn.init.zeros_(layer.offset_conv.bias)
    x = torch.rand(1, 3, 9, 7)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), layer.regular_conv(x))


def test_taps_moved_by_one_px_convolve_the_shifted_picture():
    torch.manual_seed(1)
    layer = aliked._Deformable(2, 3)
    torch.nn.init.zeros_(layer.offset_conv.weight)
    with torch.no_grad():
        layer.offset_conv.bias.copy_(torch.tensor([0.0, 1.0] * 9))  # y, x of each tap
        x = torch.rand(1, 2, 8, 10)
        inner = layer(x)[..., 1:-1, 1:-2]
        torch.testing.assert_close(inner, layer.regular_conv(x)[..., 1:-1, 2:-1])


def test_keypoints_lie_on_the_picture_and_descriptors_have_unit_length(network):
    picture = np.random.default_rng(0).uniform(0, 1, (50, 70)).astype(np.float32)
    places, descriptors = aliked.describe(network, picture)
    assert len(places) == len(descriptors) > 10
    assert (places > 2).all()
    assert (places < (68, 48)).all()
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-4)


def test_a_picture_larger_than_needed_by_padding_gives_the_same_places(network):
    """Sides that are no multiple of the coarsest map's step are padded, not stretched."""
    picture = np.random.default_rng(0).uniform(0, 1, (64, 64)).astype(np.float32)
    whole, _ = aliked.describe(network, picture)
    assert len(whole) > 10
    assert whole.max() < 62


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_describer_that_knows_no_rotation_matches_the_right_quarter_turn(section, quarter, mirrored):
    """Descriptors that are the neighbourhood itself fit only where the turned picture stands as the fixed one."""
    placed = turn(90.0 * quarter, mirrored=mirrored)
    moved, _ = partner(section, placed, warp_px=0.0)
    fixed, moving = (features(stain(one, (0.6, 1.0, 0.5)), mpp=MPP) for one in (section, moved))
    rows, columns = np.mgrid[20:200:6, 20:200:6]

    def patches(density):
        seen = [density[r : r + 9, c : c + 9].ravel() for r, c in zip(rows.ravel(), columns.ravel(), strict=True)]
        return np.stack([columns.ravel(), rows.ravel()], axis=1) + 4.5, np.stack(seen).astype(np.float32)

    found = match_starts(fixed, moving, flips=True, scale_range=(0.9, 1.1), describe=patches, quarters=(0, 1, 2, 3))
    corners = np.array([[60.0, 60.0], [160.0, 60.0], [60.0, 160.0]])
    apart = [float(np.abs(apply_affine(one, corners) - apply_affine(placed, corners)).max()) for one in found]
    assert min(apart) < 4


def test_missing_weights_are_an_error_and_not_a_search_without_them(section, tmp_path, monkeypatch):
    monkeypatch.setenv("HEPIPE_WEIGHTS", str(tmp_path))
    pictures = read_pictures(*as_slides(section, section), max_px=224)
    spec = SearchSpec(rotation_step_deg=45.0, flips=False, matcher="aliked")
    with pytest.raises(WeightsError, match=r"weights missing \(aliked\): put aliked-n16rot.pth"):
        choose_start(pictures, Judge(pictures), spec)
