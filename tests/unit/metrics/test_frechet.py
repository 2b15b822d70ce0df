import numpy as np
import pytest
from scipy.linalg import sqrtm

from hepipe.metrics import frechet


@pytest.fixture
def sets():
    rng = np.random.default_rng(8)
    return rng.normal(0.2, 1.1, (90, 12)), rng.normal(0, 1, (70, 12))


def by_definition(fake, real):
    first, second = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
    shift = fake.mean(0) - real.mean(0)
    return shift @ shift + np.trace(first) + np.trace(second) - 2 * np.trace(sqrtm(first @ second).real)


def test_frechet_distance_follows_its_definition(sets):
    assert frechet.frechet_distance(*sets) == pytest.approx(by_definition(*sets), rel=1e-9)


def test_frechet_distance_of_fewer_vectors_than_features_follows_its_definition(sets):
    few = [part[:9] for part in sets]
    assert frechet.frechet_distance(*few) == pytest.approx(by_definition(*few), rel=1e-5)


def test_a_set_is_at_no_frechet_distance_from_itself_but_slightly_below_in_kernel_distance(sets):
    assert frechet.frechet_distance(sets[0], sets[0]) == pytest.approx(0, abs=1e-9)
    assert frechet.kernel_distance(sets[0], sets[0]) < 0


def test_kernel_distance_follows_its_definition(sets):
    x, y = sets[0][:70], sets[1]
    pairs = [(i, j) for i in range(70) for j in range(70) if i != j]
    i, j = np.array(pairs).T
    a, b = np.indices((70, 70)).reshape(2, -1)

    def cube(u, v, p, q):
        return (np.einsum("nd,nd->n", u[p], v[q]) / 12 + 1) ** 3

    expected = cube(x, x, i, j).mean() + cube(y, y, i, j).mean() - 2 * cube(x, y, a, b).mean()
    assert frechet.kernel_distance(*sets) == pytest.approx(expected, rel=1e-9)


def test_the_order_of_tiles_does_not_matter(sets):
    shuffled = np.random.default_rng(0).permutation(sets[0])
    assert frechet.frechet_distance(shuffled, sets[1]) == pytest.approx(frechet.frechet_distance(*sets), rel=1e-9)


def test_subsets_are_seeded_and_shrink_to_what_there_is(sets):
    first = frechet.kernel_distance_over_subsets(*sets, subsets=5)
    assert first == frechet.kernel_distance_over_subsets(*sets, subsets=5)
    assert first[1] >= 0
