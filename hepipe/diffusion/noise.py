"""Gaussian diffusion: tables of a noise schedule, fewer steps, predictions turned into one another, and the losses.

Ho et al., DDPM, NeurIPS 2020; Nichol & Dhariwal, ICML 2021 (cosine schedule, respacing, learned variance);
Salimans & Ho, ICLR 2022 (v). Images are in [-1, 1]; index 0 is the least noise. Tables are float64 and become float32
as they are looked up; every function works in float32 whatever the network ran in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

Prediction = Literal["eps", "x0", "v"]
Variance = Literal["small", "large", "learned"]


def linear_betas(n: int) -> Float64[Tensor, " n"]:
    """From 1e-4 to 0.02 at 1000 steps; scaled so that other numbers of steps end as noisy."""
    return torch.linspace(0.1 / n, 20.0 / n, n, dtype=torch.float64)


def cosine_betas(n: int) -> Float64[Tensor, " n"]:
    """So that the kept signal falls like a squared cosine; at most 0.999 a step."""
    u = torch.arange(n + 1, dtype=torch.float64) / n
    kept = ((u + 0.008) / 1.008 * math.pi / 2).cos() ** 2
    return (1 - kept[1:] / kept[:-1]).clamp(max=0.999)


def kept_times(n: int, spacing: str) -> list[int]:
    """Times of a shortened schedule, rising.

    Args:
        n: Times of the full one.
        spacing: `ddimN`, the smallest whole stride that gives exactly N; `N` or `n1,n2,…`, as many evenly spread over
            each of equal sections, both ends of a section included; empty, all.

    Raises:
        ValueError: No such stride, or more times asked for than a section has.
    """
    if not spacing:
        return list(range(n))
    if spacing.startswith("ddim"):
        wanted = int(spacing.removeprefix("ddim"))
        for stride in range(1, n + 1):
            if len(range(0, n, stride)) == wanted:
                return list(range(0, n, stride))
        raise ValueError(f"spacing {spacing}: no whole stride over {n} times gives {wanted}")
    counts = [int(count) for count in spacing.split(",")]
    times: list[int] = []
    start = 0
    for section, count in enumerate(counts):
        size = n // len(counts) + (section < n % len(counts))
        if not 0 < count <= size:
            raise ValueError(f"spacing {spacing}: {count} times from a section of {size}")
        # Summed and not multiplied, as the authors do: halves then round the same way.
        gap = (size - 1) / (count - 1) if count > 1 else 1.0
        offset = 0.0
        for _ in range(count):
            times.append(start + round(offset))
            offset += gap
        start += size
    return times


@dataclass(frozen=True)
class NoiseSchedule:
    """Tables by step of a schedule, complete or shortened; (n) float64 but `times`.

    Attributes:
        times: Of the full schedule, rising: what a network is told.
        betas: Variance added in a step.
        signal: Cumulative product of 1 - beta (ā).
        signal_before: The same one step earlier; 1 at first.
        signal_after: The same one step later; 0 at last.
        posterior_variance: Of the state before, given state and clean image; 0 at first.
        posterior_log_variance: With the second entry in the place of the first, whose logarithm is infinite.
        posterior_clean: Factor of the clean image in the posterior's mean.
        posterior_state: Factor of the state.
        n_full: Times of the full schedule.
    """

    times: Int64[Tensor, " n"]
    betas: Float64[Tensor, " n"]
    signal: Float64[Tensor, " n"]
    signal_before: Float64[Tensor, " n"]
    signal_after: Float64[Tensor, " n"]
    posterior_variance: Float64[Tensor, " n"]
    posterior_log_variance: Float64[Tensor, " n"]
    posterior_clean: Float64[Tensor, " n"]
    posterior_state: Float64[Tensor, " n"]
    n_full: int

    def __len__(self) -> int:
        return len(self.times)

    def to(self, device: torch.device) -> NoiseSchedule:
        """The same tables on a device."""
        moved: dict[str, Any] = {name: x.to(device) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **moved)


def make_schedule(betas: Float64[Tensor, " n"], times: Sequence[int] | None = None) -> NoiseSchedule:
    """Tables of a schedule, or of the steps at `times` (rising) with the same noise at each of them."""
    n_full = len(betas)
    kept = torch.as_tensor(list(range(n_full)) if times is None else list(times))
    one, none = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if times is not None:
        signal = (1 - betas).cumprod(0)[kept]
        betas = 1 - signal / torch.cat([one, signal[:-1]])
    signal = (1 - betas).cumprod(0)
    before, after = torch.cat([one, signal[:-1]]), torch.cat([signal[1:], none])
    variance = betas * (1 - before) / (1 - signal)
    return NoiseSchedule(
        times=kept,
        betas=betas,
        signal=signal,
        signal_before=before,
        signal_after=after,
        posterior_variance=variance,
        posterior_log_variance=torch.cat([variance[1:2], variance[1:]]).log(),
        posterior_clean=betas * before.sqrt() / (1 - signal),
        posterior_state=(1 - before) * (1 - betas).sqrt() / (1 - signal),
        n_full=n_full,
    )


def times_even_in_snr(schedule: NoiseSchedule, n: int) -> list[int]:
    """Times of a complete schedule, both ends included, evenly spread over the logarithm of signal to noise.

    What a solver of high order wants; fewer than `n` where the schedule has no time in between.
    """
    log_snr = (schedule.signal / (1 - schedule.signal)).log()
    wanted = torch.linspace(float(log_snr[-1]), float(log_snr[0]), n, dtype=torch.float64)
    return sorted({int((log_snr - one).abs().argmin()) for one in wanted})


def look_up(table: Float64[Tensor, " n"], i: Int[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """An entry for each picture, float32, shaped to multiply it."""
    return table[i].float().view(-1, *[1] * (like.ndim - 1))


def add_noise(
    schedule: NoiseSchedule, clean: Float[Tensor, "b c h w"], i: Int[Tensor, " b"], noise: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """The state at each picture's step."""
    signal = look_up(schedule.signal, i, clean)
    rest = look_up(1 - schedule.signal, i, clean)
    return signal.sqrt() * clean + rest.sqrt() * noise


def target_of(
    schedule: NoiseSchedule,
    clean: Float[Tensor, "b c h w"],
    i: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
    predict: Prediction,
) -> Float[Tensor, "b c h w"]:
    """What a network of this prediction is to give."""
    if predict == "x0":
        return clean
    if predict == "eps":
        return noise
    signal, rest = look_up(schedule.signal, i, clean), look_up(1 - schedule.signal, i, clean)
    return signal.sqrt() * noise - rest.sqrt() * clean


def clean_from(
    schedule: NoiseSchedule,
    state: Float[Tensor, "b c h w"],
    i: Int[Tensor, " b"],
    output: Float[Tensor, "b c h w"],
    predict: Prediction,
) -> Float[Tensor, "b c h w"]:
    """The clean image that a prediction means. From eps it is divided by as little as 0.006: clamp it."""
    output = output.float()
    if predict == "x0":
        return output
    signal, rest = look_up(schedule.signal, i, state), look_up(1 - schedule.signal, i, state)
    if predict == "v":
        return signal.sqrt() * state - rest.sqrt() * output
    return (state - rest.sqrt() * output) / signal.sqrt()


def noise_from(
    schedule: NoiseSchedule, state: Float[Tensor, "b c h w"], i: Int[Tensor, " b"], clean: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """The noise that leads from a clean image to a state."""
    signal, rest = look_up(schedule.signal, i, state), look_up(1 - schedule.signal, i, state)
    return (state - signal.sqrt() * clean) / rest.sqrt()


def posterior_mean(
    schedule: NoiseSchedule, state: Float[Tensor, "b c h w"], i: Int[Tensor, " b"], clean: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Mean of the state one step earlier, given state and clean image."""
    clean_part = look_up(schedule.posterior_clean, i, state) * clean
    return clean_part + look_up(schedule.posterior_state, i, state) * state


def log_variance(
    schedule: NoiseSchedule,
    state: Float[Tensor, "b c h w"],
    i: Int[Tensor, " b"],
    variance: Variance,
    learned: Float[Tensor, "b c h w"] | None = None,
) -> Float[Tensor, "b c h w"]:
    """Logarithm of an ancestral step's variance.

    Args:
        schedule: Tables.
        state: For its shape.
        i: Step of each picture.
        variance: `small`, the posterior's; `large`, beta; `learned`, between both.
        learned: In [-1, 1], from small to large; for `learned`.
    """
    small = look_up(schedule.posterior_log_variance, i, state)
    if variance == "small":
        return small.expand_as(state)
    if variance == "large":
        large = torch.cat([schedule.posterior_variance[1:2], schedule.betas[1:]])
        return look_up(large.log(), i, state).expand_as(state)
    assert learned is not None
    share = (learned.float() + 1) / 2
    return share * look_up(schedule.betas.log(), i, state) + (1 - share) * small


def variational_bound(
    schedule: NoiseSchedule,
    clean: Float[Tensor, "b c h w"],
    state: Float[Tensor, "b c h w"],
    i: Int[Tensor, " b"],
    predicted: Float[Tensor, "b c h w"],
    log_var: Float[Tensor, "b c h w"],
) -> Float[Tensor, " b"]:
    """Bits per channel that a step costs: divergence from the true posterior, at step 0 the code of 8-bit values.

    Args:
        schedule: Tables.
        clean: The true image.
        state: At step `i`.
        i: Step of each picture.
        predicted: The network's clean image; detach it to train the variance alone.
        log_var: Of the step.
    """
    mean = posterior_mean(schedule, state, i, predicted)
    true_mean = posterior_mean(schedule, state, i, clean)
    true_log = look_up(schedule.posterior_log_variance, i, state)
    gap = log_var - true_log
    divergence = 0.5 * (gap - 1 + (-gap).exp() + (true_mean - mean) ** 2 * (-log_var).exp())
    nats = torch.where(i.view(-1, 1, 1, 1) == 0, -_log_of_byte(clean, mean, log_var), divergence)
    return nats.flatten(1).mean(1) / math.log(2)


def _log_of_byte(
    x: Float[Tensor, "b c h w"], mean: Float[Tensor, "b c h w"], log_var: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Log-probability that a normal variable falls where it rounds to the 8-bit value of x."""
    centred, narrowness = x - mean, (-log_var / 2).exp()
    above, below = _phi(narrowness * (centred + 1 / 255)), _phi(narrowness * (centred - 1 / 255))
    tiny = 1e-12
    inside = (above - below).clamp(min=tiny).log()
    upper_end = torch.where(x > 0.999, (1 - below).clamp(min=tiny).log(), inside)
    return torch.where(x < -0.999, above.clamp(min=tiny).log(), upper_end)


def _phi(x: Tensor) -> Tensor:
    """The authors' approximation of the normal distribution function."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
