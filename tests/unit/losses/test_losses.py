import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from hepipe.losses.adversarial import ADVERSARIAL
from hepipe.losses.css import css, css_loss, shared_range
from hepipe.losses.pyramid import octave_l1, octaves, pool_scale, pooled_l1, weighted_mean


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand((2, 3, 20, 24), generator=random), torch.rand((2, 3, 20, 24), generator=random)


def test_vanilla_is_cross_entropy_with_zero_and_one() -> None:
    logits = torch.linspace(-3, 3, 7)
    real, fake = ADVERSARIAL["vanilla"]
    torch.testing.assert_close(real(logits), F.binary_cross_entropy_with_logits(logits, torch.ones(7)))
    torch.testing.assert_close(fake(logits), F.binary_cross_entropy_with_logits(logits, torch.zeros(7)))


def test_lsgan_is_the_squared_distance_from_zero_and_one() -> None:
    logits = torch.linspace(-3, 3, 7)
    real, fake = ADVERSARIAL["lsgan"]
    torch.testing.assert_close(real(logits), F.mse_loss(logits, torch.ones(7)))
    torch.testing.assert_close(fake(logits), F.mse_loss(logits, torch.zeros(7)))


def test_wgan_is_the_mean_and_its_opposite() -> None:
    real, fake = ADVERSARIAL["wgangp"]
    assert float(fake(torch.tensor([1.0, 3.0]))) == 2
    assert float(real(torch.tensor([1.0, 3.0]))) == -2


def blurred(image: np.ndarray, *, mode: str, n: int) -> np.ndarray:
    for _ in range(n):
        image = gaussian_filter(image, 1.0, truncate=1.0, mode=mode)
    return image


def test_an_octave_is_four_blurs_and_every_second_pixel(pair: tuple[Tensor, Tensor]) -> None:
    image = pair[0][:1, :1]
    expected = blurred(image[0, 0].double().numpy(), mode="mirror", n=4)[::2, ::2]
    np.testing.assert_allclose(octaves(image, 2)[1][0, 0], expected, atol=1e-6)


def test_a_pooled_scale_counts_the_zeros_outside(pair: tuple[Tensor, Tensor]) -> None:
    image = pair[0][:1, :1]
    smooth = np.pad(blurred(image[0, 0].double().numpy(), mode="constant", n=4), 1)
    expected = sum(smooth[i : i + 20 : 2, j : j + 24 : 2] for i in range(3) for j in range(3)) / 9
    np.testing.assert_allclose(pool_scale(image)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize("loss", [octave_l1, lambda a, b, n: pooled_l1(a, b, n=n)], ids=["octave", "pooled"])
def test_pyramid_terms_vanish_between_equal_pictures_only(loss: object, pair: tuple[Tensor, Tensor]) -> None:
    assert callable(loss)
    assert loss(pair[0], pair[0], 4).tolist() == [0, 0, 0, 0]
    assert bool((loss(*pair, 4) > 0).all())


def test_the_released_gradient_is_that_of_the_full_picture_alone(pair: tuple[Tensor, Tensor]) -> None:
    gradients = {}
    for grad in ("all", "octave0"):
        fake = pair[0].clone().requires_grad_()
        terms = pooled_l1(fake, pair[1], n=3, grad=grad)
        weighted_mean(terms, (1.0, 1.0, 1.0)).backward()
        gradients[grad] = fake.grad
    plain = (pair[0] - pair[1]).sign() / pair[0].numel() / 3
    torch.testing.assert_close(gradients["octave0"], plain)
    assert not torch.allclose(gradients["all"], plain)


def test_a_weighted_mean_divides_by_its_weights() -> None:
    assert float(weighted_mean(torch.tensor([1.0, 4.0]), (1.0, 2.0))) == 3


def test_css_agrees_with_moments_taken_by_scipy(pair: tuple[Tensor, Tensor]) -> None:
    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (0, 1.5, 1.5), mode="mirror", truncate=3.4)  # 5 px either side

    expected = []
    for x, y in zip(*(t.double().numpy() for t in pair), strict=True):
        covariance = mean(x * y) - mean(x) * mean(y)
        variances = mean(x * x) - mean(x) ** 2 + mean(y * y) - mean(y) ** 2
        expected.append(((2 * covariance + 0.03**2) / (variances + 0.03**2)).mean())
    np.testing.assert_allclose(css(*pair, value_range=1.0), expected, atol=1e-5)


def test_css_is_one_for_a_picture_and_its_brighter_copy(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(css(pair[0], pair[0] + 0.3, value_range=1.0), torch.ones(2), atol=1e-5, rtol=0)


def test_css_judges_every_image_alone(pair: tuple[Tensor, Tensor]) -> None:
    torch.testing.assert_close(css(*pair, value_range=1.0)[1:], css(pair[0][1:], pair[1][1:], value_range=1.0))


def test_the_css_loss_falls_from_opposite_to_equal_pictures() -> None:
    losses = [float(css_loss(torch.tensor([similarity]))) for similarity in (-1.0, 0.0, 1.0)]
    assert losses == pytest.approx([-np.log(1e-8), np.log(2), 0], abs=1e-5)


def test_the_shared_range_is_the_larger_one() -> None:
    assert float(shared_range(torch.tensor([0.0, 1.0]), torch.tensor([-2.0, 2.5]))) == 4.5


def test_losses_are_float32_under_autocast(pair: tuple[Tensor, Tensor]) -> None:
    def losses() -> list[Tensor]:
        terms = [octave_l1(*pair, 3), pooled_l1(*pair, n=3), css(*pair, value_range=1.0)]
        return terms + [side(pair[0]) for sides in ADVERSARIAL.values() for side in sides]

    expected = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = losses()
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b)
