"""The Brownian bridge: its states, its objectives and its walk, against what must hold exactly."""

import math

import pytest
import torch

from hepipe.diffusion.bridge import (
    bridge_state,
    bridge_step,
    bridge_target,
    make_bridge,
    sample_of,
    target_from,
    visited_times,
    walk_bridge,
)

OBJECTIVES = ("grad", "noise", "ysubx")


def pictures(n=4, side=6):
    random = torch.Generator().manual_seed(2)
    x0, y = (torch.rand(2, n, 3, side, side, generator=random) * 2 - 1).unbind()
    return x0, y, torch.randn(n, 3, side, side, generator=random)


def exact(x0, bridge, objective, y):
    """A network that knows the target; told a state and its time it gives the objective."""

    def network(state, t):
        share = bridge.share[t].float().view(-1, 1, 1, 1)
        noise = (state - (1 - share) * x0 - share * y) / bridge.variance[t].float().view(-1, 1, 1, 1).sqrt()
        return bridge_target(objective, state, x0, y, noise)

    return network


def test_a_bridge_keeps_away_from_its_ends_where_it_would_divide_by_zero():
    linear, exponential = make_bridge(1000, scale=2.0), make_bridge(1000, course="sin")
    assert linear.share[[0, -1]].tolist() == pytest.approx([0.001, 0.999])
    assert linear.variance.max() == pytest.approx(1.0, abs=1e-5)
    assert exponential.share[[0, -1]].tolist() == pytest.approx([1.0075**-1000, 0.999])
    for bridge in (linear, exponential):
        assert (bridge.variance > 0).all()
        assert torch.isfinite(bridge.posterior_variance).all()
        assert bridge.share.dtype == torch.float64


def test_the_one_step_tables_follow_from_the_marginal_ones():
    bridge = make_bridge(50)
    for t in (1, 20, 49):
        m, m1, v, v1 = (float(x) for x in (*bridge.share[[t, t - 1]], *bridge.variance[[t, t - 1]]))
        transition = v - v1 * ((1 - m) / (1 - m1)) ** 2
        assert float(bridge.transition_variance[t]) == pytest.approx(transition)
        assert float(bridge.posterior_variance[t]) == pytest.approx(transition * v1 / v)
    assert float(bridge.posterior_variance[0]) == 0.0


def test_visited_times_fall_from_the_source_to_the_target():
    published = visited_times(1000, 200)
    assert (len(published), published[:4], published[-4:]) == (200, [999, 993, 988, 983], [10, 5, 1, 0])
    assert visited_times(1000, 3) == [999, 1, 0]
    assert visited_times(6) == [5, 4, 3, 2, 1, 0]
    for steps in (4, 20, 200):
        cosine = visited_times(1000, steps, spacing="cosine")
        assert cosine == sorted(set(cosine), reverse=True)
        assert (cosine[0], cosine[-2:]) == (999, [1, 0])
        assert len(cosine) <= steps + 2
    with pytest.raises(ValueError, match="2 steps over a bridge of 1000 times; 3 to 1000 expected"):
        visited_times(1000, 2)


def test_grad_is_the_share_of_the_source_and_the_noise_that_a_state_adds():
    bridge, (x0, y, noise), t = make_bridge(1000), pictures(), torch.tensor([0, 300, 700, 999])
    state = bridge_state(bridge, x0, y, t, noise)
    target = bridge_target("grad", state, x0, y, noise)
    assert torch.equal(target, state - x0)
    share, variance = (table[t].view(-1, 1, 1, 1) for table in (bridge.share, bridge.variance))
    torch.testing.assert_close(target.double(), share * (y - x0) + variance.sqrt() * noise, atol=1e-6, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_each_objective_gives_the_target_back(objective):
    bridge, (x0, y, noise), t = make_bridge(1000), pictures(), torch.tensor([0, 300, 700, 999])
    state = bridge_state(bridge, x0, y, t, noise)
    output = bridge_target(objective, state, x0, y, noise)
    atol = 1e-3 if objective == "noise" else 1e-6
    torch.testing.assert_close(target_from(bridge, objective, state, y, t, output), x0, atol=atol, rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("times", [visited_times(1000, 200), visited_times(1000, 3), [999, 400, 399, 7, 0], [999, 0]])
@pytest.mark.parametrize(("eta", "boot"), [(1.0, False), (0.0, True), (0.5, True)])
def test_with_the_exact_objective_any_list_of_times_returns_the_target(objective, times, eta, boot):
    bridge, (x0, y, noise) = make_bridge(1000), pictures()
    walk = walk_bridge(
        exact(x0, bridge, objective, y),
        y,
        bridge=bridge,
        times=times,
        noise=lambda like: noise,
        objective=objective,
        eta=eta,
        boot=boot,
    )
    torch.testing.assert_close(sample_of(walk), x0, atol=2e-5, rtol=0)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_a_marginal_walk_keeps_the_variance_that_the_network_was_trained_on(eta):
    bridge, times = make_bridge(1000), [999, 800, 500, 499, 60, 1, 0]
    random = torch.Generator().manual_seed(int(eta * 10))
    y, x0 = torch.full((1, 1, 200, 200), 0.4), torch.full((1, 1, 200, 200), -0.3)
    walk = walk_bridge(
        lambda state, t: state - x0,
        y,
        bridge=bridge,
        times=times,
        noise=lambda like: torch.randn(like.shape, generator=random),
        eta=eta,
        eta_mode="marginal",
        boot=True,
    )
    for time, state in zip(times[:-1], walk, strict=False):
        residual = state - (1 - float(bridge.share[time])) * x0 - float(bridge.share[time]) * y
        # 40,000 draws: the relative error of a variance is 0.7 %.
        assert float(residual.var()) == pytest.approx(float(bridge.variance[time]), rel=0.03), time


def test_as_released_eta_takes_noise_away_and_below_one_leaves_the_trained_variance():
    bridge = make_bridge(1000)
    t, until = torch.tensor([600]), torch.tensor([400])
    x0, y = torch.zeros(1, 1, 200, 200), torch.zeros(1, 1, 200, 200)
    random = torch.Generator().manual_seed(0)
    state, noise = (torch.randn(x0.shape, generator=random) for _ in range(2))
    state = state * float(bridge.variance[600]) ** 0.5

    def reached(eta, mode):
        return bridge_step(bridge, state, x0, y, noise, t=t, until=until, eta=eta, eta_mode=mode)

    m, v, m_n, v_n = (
        float(x) for x in (*bridge.share[[600]], *bridge.variance[[600]], *bridge.share[[400]], *bridge.variance[[400]])
    )
    fresh = (v - v_n * ((1 - m) / (1 - m_n)) ** 2) * v_n / v
    assert float(reached(0.5, "reference").var()) == pytest.approx(v_n - 0.75 * fresh, rel=0.03)
    assert float(reached(0.5, "marginal").var()) == pytest.approx(v_n, rel=0.03)
    assert torch.equal(reached(1.0, "reference"), reached(1.0, "marginal"))


def test_a_step_is_the_bridges_own_posterior():
    """Brute force: the states at two times are jointly normal, so the earlier one has a known mean and variance."""
    bridge, t, n = make_bridge(1000), 700, 650
    m, v, m_n, v_n = (float(x) for x in (bridge.share[t], bridge.variance[t], bridge.share[n], bridge.variance[n]))
    x0, y, state = (torch.tensor(value).view(1, 1, 1, 1) for value in (0.2, -0.5, 0.9))
    together = v_n * (1 - m) / (1 - m_n)
    mean = (1 - m_n) * 0.2 + m_n * -0.5 + together / v * (0.9 - (1 - m) * 0.2 - m * -0.5)
    variance = v_n - together**2 / v
    at = {"t": torch.tensor([t]), "until": torch.tensor([n]), "eta": 1.0, "eta_mode": "marginal"}
    assert float(bridge_step(bridge, state, x0, y, torch.zeros(1, 1, 1, 1), **at)) == pytest.approx(mean, abs=1e-5)
    moved = float(bridge_step(bridge, state, x0, y, torch.ones(1, 1, 1, 1), **at)) - mean
    assert moved == pytest.approx(math.sqrt(variance), abs=1e-5)


def test_a_walk_without_fresh_noise_draws_its_booting_noise_alone():
    bridge, (x0, y, noise), drawn = make_bridge(1000), pictures(), []

    def draw(like):
        drawn.append(like.shape)
        return noise

    def count(**options):
        drawn.clear()
        walk = walk_bridge(lambda s, t: s - x0, y, bridge=bridge, times=[999, 500, 1, 0], noise=draw, **options)
        states = list(walk)
        assert len(states) == 5
        return len(drawn), torch.equal(states[0], y)

    assert count(eta=0.0, boot=True) == (1, False)
    assert count(eta=0.0, eta_mode="reference") == (0, True)
    assert count(eta=1.0) == (3, True)


def test_the_state_of_a_walk_is_float32_whatever_the_network_gives():
    bridge, (x0, y, noise) = make_bridge(1000), pictures()
    times = []

    def network(state, t):
        assert state.dtype == torch.float32
        times.append(int(t[0]))
        return (state - x0).to(torch.bfloat16)

    walk = walk_bridge(network, y, bridge=bridge, times=[999, 500, 1, 0], noise=lambda like: noise, clip=False)
    assert all(state.dtype == torch.float32 for state in walk)
    assert times == [999, 500, 1, 0]
