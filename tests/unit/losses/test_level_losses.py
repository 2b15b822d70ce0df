import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from hepipe.losses.adversarial import smoothed_lsgan
from hepipe.losses.levels import focal
from hepipe.losses.pixel import PIXEL, charbonnier, shrunk
from hepipe.losses.similarity import ssim


def test_ssim_is_that_of_a_second_implementation_where_the_window_fits() -> None:
    random = np.random.default_rng(0)
    a = random.random((24, 30, 3))
    b = (a + 0.3 * random.random((24, 30, 3))).clip(0, 1)
    # Its window of sigma 1.2 has 9 px, and it leaves out 4 px at every border.
    expected = structural_similarity(
        a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.2, use_sample_covariance=False
    )
    own = ssim(*(torch.from_numpy(x).permute(2, 0, 1)[None].float() for x in (a, b)), side=9, sigma=1.2)
    assert float(own) == pytest.approx(expected, abs=1e-4)
    assert 0.2 < expected < 0.95


def test_ssim_of_a_picture_with_itself_is_one_and_of_each_image_its_own() -> None:
    a = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    b = torch.stack([a[0], a[1].flip(1)])
    similarity = ssim(a, b)
    assert float(similarity[0]) == pytest.approx(1)
    assert float(similarity[1]) < 0.5


def test_focal_without_gamma_is_weighted_cross_entropy_and_with_gamma_forgets_what_is_right() -> None:
    logits = torch.tensor([[4.0, 0, 0], [0, 0, 1]], requires_grad=True)
    labels = torch.tensor([0, 1])
    plain = focal(logits, labels, weights=(1.0, 2.0, 1.0), gamma=0.0)
    entropy = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(plain, entropy * torch.tensor([1.0, 2.0]))
    probability = logits.softmax(1)[[0, 1], labels]
    torch.testing.assert_close(
        focal(logits, labels, weights=(1.0, 2.0, 1.0)), plain * (1 - probability).square(), rtol=1e-5, atol=1e-7
    )


def test_smoothing_moves_both_targets_inwards_and_scales_count_alike() -> None:
    maps = [torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 2, 2)]
    smoothing = [torch.full_like(one, 0.1) for one in maps]
    assert float(smoothed_lsgan(maps, smoothing, real=True)) == pytest.approx((0.1**2 + 0.9**2) / 2)
    assert float(smoothed_lsgan(maps, smoothing, real=False)) == pytest.approx((0.9**2 + 0.1**2) / 2)


def test_pixel_differences_are_their_formulas() -> None:
    a, b = torch.tensor([0.0, 0.5]), torch.tensor([0.5, -1.5])
    values = {name: float(difference(a, b)) for name, difference in PIXEL.items()}
    assert values == pytest.approx(
        {"mae": 1.25, "mse": 2.125, "smooth_mae": (0.125 + 1.5) / 2, "charbonnier": 1.25}, abs=1e-5
    )
    assert float(charbonnier(a, a, eps=0.1)) == pytest.approx(0.1)


def test_a_shrunk_picture_keeps_its_corners() -> None:
    picture = torch.arange(64.0).view(1, 1, 8, 8)
    small = shrunk(picture, side=(3, 3))
    torch.testing.assert_close(small[0, 0, ::2, ::2], picture[0, 0, ::7, ::7])
