"""Gaussian diffusion: tables, conversions, posterior and samplers, against brute force and exact networks."""

import math

import pytest
import torch

from hepipe.diffusion.noise import (
    add_noise,
    clean_from,
    cosine_betas,
    kept_times,
    linear_betas,
    log_variance,
    look_up,
    make_schedule,
    noise_from,
    posterior_mean,
    target_of,
    times_even_in_snr,
    variational_bound,
)
from hepipe.diffusion.samplers import (
    ancestral_step,
    ddim_inverse_step,
    ddim_step,
    invert_ddim,
    sample_ddim,
    sample_ddpm,
    sample_dpm_solver,
)

PREDICTIONS = ("eps", "x0", "v")
LINEAR, COSINE = make_schedule(linear_betas(1000)), make_schedule(cosine_betas(1000))


def pictures(n=4):
    random = torch.Generator().manual_seed(2)
    clean = torch.rand(n, 3, 5, 5, generator=random) * 2 - 1
    return clean, torch.randn(clean.shape, generator=random)


def shortened(spacing, betas=linear_betas):
    return make_schedule(betas(1000), kept_times(1000, spacing))


def exact(clean, schedule, predict):
    """A network that knows the clean image; told a state and an original time it gives its prediction."""

    def network(state, times):
        signal = {int(t): float(s) for t, s in zip(schedule.times, schedule.signal, strict=True)}[int(times[0])]
        noise = (state - math.sqrt(signal) * clean) / math.sqrt(1 - signal)
        velocity = math.sqrt(signal) * noise - math.sqrt(1 - signal) * clean
        return {"eps": noise, "x0": clean, "v": velocity}[predict]

    return network


def test_the_schedules_end_as_noisy_as_published():
    assert LINEAR.signal[[0, -1]].tolist() == pytest.approx([0.9999, 4.04e-5], rel=2e-3)
    assert float(COSINE.signal[-1]) == pytest.approx(2.4e-9, rel=0.02)
    assert LINEAR.betas.dtype == torch.float64
    assert float(make_schedule(linear_betas(250)).signal[-1]) == pytest.approx(4e-5, rel=0.25)


def test_kept_times_have_a_whole_stride_or_are_evenly_spread_over_sections():
    assert kept_times(1000, "ddim100") == list(range(0, 1000, 10))
    assert kept_times(1000, "3") == [0, 500, 999]
    assert kept_times(10, "2,1") == [0, 4, 5]
    assert kept_times(5, "") == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="spacing ddim60: no whole stride over 1000 times gives 60"):
        kept_times(1000, "ddim60")
    with pytest.raises(ValueError, match="7 times from a section of 5"):
        kept_times(10, "2,7")


def test_a_shortened_schedule_is_as_noisy_at_its_times_and_tells_them():
    short = shortened("50")
    assert short.times.tolist() == kept_times(1000, "50")
    torch.testing.assert_close(short.signal, LINEAR.signal[short.times], rtol=1e-10, atol=0)
    assert (len(short), short.n_full) == (50, 1000)


@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_every_prediction_gives_image_and_noise_back(schedule, predict):
    clean, noise = pictures()
    i = torch.tensor([0, 300, 700, 950])
    state = add_noise(schedule, clean, i, noise)
    output = target_of(schedule, clean, i, noise, predict)
    found = clean_from(schedule, state, i, output, predict)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)
    torch.testing.assert_close(noise_from(schedule, state, i, clean), noise, atol=1e-4, rtol=0)


@pytest.mark.parametrize("step", [1, 400, 999])
def test_the_posterior_is_that_of_two_jointly_normal_states(step):
    """Brute force on a grid: p(before | clean) p(state | before), normalised."""
    clean, state = 0.3, -0.6
    before, beta = float(LINEAR.signal_before[step]), float(LINEAR.betas[step])
    expected_mean = float(LINEAR.posterior_clean[step] * clean + LINEAR.posterior_state[step] * state)
    width = math.sqrt(float(LINEAR.posterior_variance[step]))
    x = torch.linspace(expected_mean - 12 * width, expected_mean + 12 * width, 20001, dtype=torch.float64)
    prior = -((x - math.sqrt(before) * clean) ** 2) / (2 * (1 - before))
    weight = (prior - (state - math.sqrt(1 - beta) * x) ** 2 / (2 * beta)).softmax(0)
    mean = float((weight * x).sum())
    assert mean == pytest.approx(expected_mean, abs=1e-6)
    assert float((weight * (x - mean) ** 2).sum()) == pytest.approx(width**2, rel=1e-4)
    i = torch.tensor([step])
    found = posterior_mean(LINEAR, torch.full((1, 1, 1, 1), state), i, torch.full((1, 1, 1, 1), clean))
    assert float(found) == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("spacing", ["ddim20", "7", "10,5"])
def test_ddim_with_the_exact_prediction_returns_the_clean_image(spacing, eta, predict):
    schedule, (clean, noise) = shortened(spacing), pictures()
    network = exact(clean, schedule, predict)
    sample = sample_ddim(network, noise, schedule=schedule, predict=predict, eta=eta, noise=lambda like: noise)
    torch.testing.assert_close(sample, clean, atol=1e-4, rtol=0)


@pytest.mark.parametrize("predict", PREDICTIONS)
@pytest.mark.parametrize("sample", [sample_dpm_solver, sample_ddpm])
def test_the_other_samplers_with_the_exact_prediction_return_it_too(sample, predict):
    schedule, (clean, noise) = shortened("10"), pictures()
    more = {} if sample is sample_dpm_solver else {"noise": lambda like: noise}
    found = sample(exact(clean, schedule, predict), noise, schedule=schedule, predict=predict, **more)
    torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


def test_the_solver_needs_fewer_steps_than_ddim():
    """Clean image of a Gaussian around 0.3 with deviation 0.5: the exact denoiser and the exact end are known."""
    mu, deviation = 0.3, 0.5

    def network(state, times):
        signal = LINEAR.signal[times].float().view(-1, 1, 1, 1)
        gain = deviation**2 * signal.sqrt() / (deviation**2 * signal + 1 - signal)
        return mu + gain * (state - signal.sqrt() * mu)

    start = torch.linspace(-2, 2, 9).view(1, 1, 3, 3)
    fine = sample_ddim(network, start, schedule=LINEAR, predict="x0", clip=False)
    torch.testing.assert_close(fine, mu + deviation * start, atol=0.02, rtol=0)
    for times, share in ((times_even_in_snr(LINEAR, 12), 0.25), (kept_times(1000, "12"), 0.8)):
        schedule = make_schedule(linear_betas(1000), times)
        rough = sample_ddim(network, start, schedule=schedule, predict="x0", clip=False)
        solved = sample_dpm_solver(network, start, schedule=schedule, predict="x0", clip=False)
        assert (solved - fine).abs().max() < share * (rough - fine).abs().max()


def test_times_even_in_signal_to_noise_have_both_ends_and_are_denser_where_it_changes_fast():
    times = times_even_in_snr(LINEAR, 8)
    assert (len(times), times[0], times[-1]) == (8, 0, 999)
    gaps = LINEAR.signal[times].logit().diff()
    assert gaps.max() / gaps.min() < 1.6


def test_an_ancestral_step_adds_the_posteriors_noise_but_none_at_the_end():
    i = torch.tensor([0, 500])
    state, clean, noise = torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    log = log_variance(LINEAR, state, i, "small")
    reached = ancestral_step(LINEAR, state, i, clean, log, noise).flatten()
    assert float(reached[0]) == 0.0
    assert float(reached[1]) == pytest.approx(float(LINEAR.posterior_variance[500]) ** 0.5, rel=1e-5)


def test_a_learned_variance_lies_between_small_and_large():
    i, state = torch.tensor([0, 500]), torch.zeros(2, 1, 2, 2)
    small, large = (log_variance(LINEAR, state, i, kind) for kind in ("small", "large"))
    torch.testing.assert_close(log_variance(LINEAR, state, i, "learned", -torch.ones_like(state)), small)
    # At the first step beta has no posterior beside it: `large` takes the next one's there.
    betas = look_up(LINEAR.betas.log(), i, state).expand_as(state)
    torch.testing.assert_close(log_variance(LINEAR, state, i, "learned", torch.ones_like(state)), betas)
    torch.testing.assert_close(large[1], betas[1])
    assert float(large[0, 0, 0, 0]) == pytest.approx(float(LINEAR.posterior_variance[1].log()))


def test_the_bound_is_nothing_for_the_true_posterior_and_falls_nowhere_below():
    clean, noise = pictures(2)
    i = torch.tensor([300, 900])
    state = add_noise(LINEAR, clean, i, noise)
    log = log_variance(LINEAR, state, i, "small")
    assert variational_bound(LINEAR, clean, state, i, clean, log).abs().max() < 1e-6
    assert (variational_bound(LINEAR, clean, state, i, clean + 0.5, log) > 1e-7).all()
    assert (variational_bound(LINEAR, clean, state, i, clean, log + 1) > 0.1).all()


def test_at_the_first_step_the_bound_is_the_code_length_of_a_byte():
    levels = (torch.arange(256) / 127.5 - 1).view(256, 1, 1, 1)
    i, zero = torch.zeros(256, dtype=torch.int64), torch.zeros(256, 1, 1, 1)
    bits = variational_bound(LINEAR, levels, zero, i, zero, torch.full_like(zero, 2 * math.log(0.3)))
    assert float((2**-bits).sum()) == pytest.approx(1.0, abs=1e-3)


def test_the_inverse_leads_to_noise_from_which_ddim_comes_back():
    clean, _ = pictures()

    def network(state, times):
        signal = LINEAR.signal[times].float().view(-1, 1, 1, 1)
        # Of images around 0 with deviation 0.5.
        return state * (1 - signal).sqrt() / (0.25 * signal + 1 - signal)

    latent = invert_ddim(network, clean, schedule=LINEAR)
    torch.testing.assert_close(sample_ddim(network, latent, schedule=LINEAR, clip=False), clean, atol=0.02, rtol=0)


def test_one_step_down_and_one_up_with_the_same_image_and_noise_meet():
    clean, noise = pictures(2)
    up, down = torch.tensor([40, 41]), torch.tensor([41, 42])
    state = add_noise(LINEAR, clean, up, noise)
    later = ddim_inverse_step(LINEAR, state, up, clean)
    torch.testing.assert_close(later, add_noise(LINEAR, clean, down, noise), atol=1e-5, rtol=0)
    torch.testing.assert_close(ddim_step(LINEAR, later, down, clean), state, atol=1e-5, rtol=0)


def test_a_noisy_walk_without_a_source_of_noise_is_refused():
    clean, noise = pictures()
    with pytest.raises(ValueError, match=r"eta is 0\.5, so a source of noise is needed"):
        sample_ddim(exact(clean, LINEAR, "eps"), noise, schedule=shortened("5"), eta=0.5)


def test_the_state_stays_float32_whatever_the_network_gives():
    clean, noise = pictures()

    def network(state, times):
        assert state.dtype == torch.float32
        return clean.to(torch.bfloat16)

    for sample in (sample_ddim, sample_dpm_solver):
        assert sample(network, noise, schedule=shortened("5"), predict="x0").dtype == torch.float32
