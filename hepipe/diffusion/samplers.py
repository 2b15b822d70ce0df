"""Samplers of Gaussian diffusion: ancestral, DDIM and its inverse, and a second-order solver.

Ho et al., DDPM, NeurIPS 2020; Song et al., DDIM, ICLR 2021; Lu et al., DPM-Solver++, 2022 (2M, algorithm 2). All go
down the steps of a `NoiseSchedule`, complete or shortened, tell the network the original time, and keep a float32 state
whatever it runs in. Noise comes from a function, so that a tile has its own and tests give theirs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hepipe.diffusion.noise import (
    NoiseSchedule,
    Prediction,
    Variance,
    clean_from,
    log_variance,
    look_up,
    noise_from,
    posterior_mean,
)

Network = Callable[[Tensor, Tensor], Tensor]
"""State and original times (b) to the prediction; with a learned variance twice as many channels."""

Noise = Callable[[Tensor], Tensor]
"""Standard normal numbers shaped as its argument; called once for every step that needs some."""


def ancestral_step(
    schedule: NoiseSchedule,
    state: Float[Tensor, "b c h w"],
    i: Int[Tensor, " b"],
    clean: Float[Tensor, "b c h w"],
    log_var: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """The state one step earlier, drawn from the posterior; its mean where `i` is 0."""
    moving = (i > 0).float().view(-1, 1, 1, 1)
    return posterior_mean(schedule, state, i, clean) + moving * (0.5 * log_var).exp() * noise


def ddim_step(
    schedule: NoiseSchedule,
    state: Float[Tensor, "b c h w"],
    i: Int[Tensor, " b"],
    clean: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"] | None = None,
    *,
    eta: float = 0.0,
) -> Float[Tensor, "b c h w"]:
    """The state one step earlier, along the noise that leads from the clean image to the state.

    Args:
        schedule: Tables.
        state: At step `i`.
        i: Step of each picture.
        clean: As predicted, clamped or not.
        noise: None where eta is 0.
        eta: Share of fresh noise; 1 is about as noisy as the ancestral step.
    """
    before = look_up(schedule.signal_before, i, state)
    sigma = eta * look_up(_ddim_sigma(schedule), i, state)
    # By rounding the difference can be -1e-8.
    kept = (1 - before - sigma**2).clamp(min=0).sqrt()
    along = noise_from(schedule, state, i, clean)
    mean = before.sqrt() * clean + kept * along
    return mean if noise is None else mean + sigma * noise


def ddim_inverse_step(
    schedule: NoiseSchedule, state: Float[Tensor, "b c h w"], i: Int[Tensor, " b"], clean: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """The state one step later, without fresh noise; after the last step pure noise."""
    after = look_up(schedule.signal_after, i, state)
    return after.sqrt() * clean + (1 - after).sqrt() * noise_from(schedule, state, i, clean)


@torch.no_grad()
def sample_ddpm(
    network: Network,
    start: Float[Tensor, "b c h w"],
    *,
    schedule: NoiseSchedule,
    noise: Noise,
    predict: Prediction = "eps",
    variance: Variance = "small",
    clip: bool = True,
) -> Float[Tensor, "b c h w"]:
    """An ancestral sample.

    Args:
        network: State and times to its prediction.
        start: Standard normal.
        schedule: On the device of `start`.
        noise: Called once a step but the last.
        predict: What the network gives.
        variance: Of a step; `learned` comes in the second half of the network's channels.
        clip: Keep the clean image in [-1, 1] on the way.
    """
    state = start.float()
    for step in reversed(range(len(schedule))):
        i = torch.full((len(state),), step, device=state.device)
        output = network(state, schedule.times[i])
        learned = None
        if variance == "learned":
            output, learned = output.chunk(2, dim=1)
        clean = _clean(schedule, state, i, output, predict, clip=clip)
        log_var = log_variance(schedule, state, i, variance, learned)
        drawn = noise(state) if step > 0 else torch.zeros_like(state)
        state = ancestral_step(schedule, state, i, clean, log_var, drawn)
    return state


@torch.no_grad()
def sample_ddim(
    network: Network,
    start: Float[Tensor, "b c h w"],
    *,
    schedule: NoiseSchedule,
    noise: Noise | None = None,
    predict: Prediction = "eps",
    eta: float = 0.0,
    clip: bool = True,
) -> Float[Tensor, "b c h w"]:
    """A DDIM sample.

    Args:
        network: State and times to its prediction.
        start: Standard normal.
        schedule: On the device of `start`.
        noise: Called once a step but the last where eta is not 0; None where it is.
        predict: What the network gives.
        eta: See `ddim_step`.
        clip: Keep the clean image in [-1, 1] on the way.
    """
    if eta > 0 and noise is None:
        raise ValueError(f"eta is {eta}, so a source of noise is needed")
    state = start.float()
    for step in reversed(range(len(schedule))):
        i = torch.full((len(state),), step, device=state.device)
        clean = _clean(schedule, state, i, network(state, schedule.times[i]), predict, clip=clip)
        drawn = noise(state) if noise is not None and eta > 0 and step > 0 else None
        state = ddim_step(schedule, state, i, clean, drawn, eta=eta)
    return state


@torch.no_grad()
def invert_ddim(
    network: Network,
    clean: Float[Tensor, "b c h w"],
    *,
    schedule: NoiseSchedule,
    predict: Prediction = "eps",
    clip: bool = False,
) -> Float[Tensor, "b c h w"]:
    """The noise that `sample_ddim` leads back to about this image, which stands at the first step's noise level."""
    state = clean.float()
    for step in range(len(schedule)):
        i = torch.full((len(state),), step, device=state.device)
        guess = _clean(schedule, state, i, network(state, schedule.times[i]), predict, clip=clip)
        state = ddim_inverse_step(schedule, state, i, guess)
    return state


@torch.no_grad()
def sample_dpm_solver(
    network: Network,
    start: Float[Tensor, "b c h w"],
    *,
    schedule: NoiseSchedule,
    predict: Prediction = "eps",
    clip: bool = True,
) -> Float[Tensor, "b c h w"]:
    """A sample by DPM-Solver++(2M): DDIM at eta 0, corrected by the clean image of the step before; 10 to 20 steps do.

    Args:
        network: State and times to its prediction.
        start: Standard normal.
        schedule: Shortened, best by `times_even_in_snr`, on the device of `start`.
        predict: What the network gives.
        clip: Keep the clean image in [-1, 1] on the way.
    """
    state = start.float()
    # Half the logarithm of the signal-to-noise ratio; the clean image would be at infinity.
    half_log_snr = (0.5 * (schedule.signal / (1 - schedule.signal)).log()).tolist()
    last, last_width = None, 0.0
    for step in reversed(range(len(schedule))):
        i = torch.full((len(state),), step, device=state.device)
        clean = _clean(schedule, state, i, network(state, schedule.times[i]), predict, clip=clip)
        if step == 0:
            return clean
        width = half_log_snr[step - 1] - half_log_snr[step]
        # The slope of the clean image over the last step, carried to the middle of this one, but not far beyond what
        # it was seen over: times that are even in t end with a step seven times as wide, where it overshoots.
        corrected = clean
        if last is not None and width <= 2 * last_width:
            corrected = clean + (clean - last) * (0.5 * width / last_width)
        state = ddim_step(schedule, state, i, corrected)
        last, last_width = clean, width
    return state


def _ddim_sigma(schedule: NoiseSchedule) -> Tensor:
    """Deviation of the fresh noise at eta 1."""
    before, signal = schedule.signal_before, schedule.signal
    return ((1 - before) / (1 - signal)).sqrt() * (1 - signal / before).sqrt()


def _clean(
    schedule: NoiseSchedule, state: Tensor, i: Tensor, output: Tensor, predict: Prediction, *, clip: bool
) -> Tensor:
    clean = clean_from(schedule, state, i, output, predict)
    return clean.clamp(-1, 1) if clip else clean
