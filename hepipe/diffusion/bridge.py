"""Brownian bridge between a source and its target, and its samplers (Li et al., BBDM, CVPR 2023).

The chain goes from the target x_0 at t = 0 to the source y at t = T - 1, with noise in between. Tables are float64 and
become float32 as they are looked up; the state stays float32 whatever the network ran in.

Differs from the authors' code: `eta_mode` marginal keeps the noise level that the network was trained on for every eta;
the cosine list of times stays inside the schedule.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

Course = Literal["linear", "sin"]
Objective = Literal["grad", "noise", "ysubx"]
EtaMode = Literal["marginal", "reference"]

Network = Callable[[Tensor, Tensor], Tensor]
"""State and times (b) to the objective."""

Noise = Callable[[Tensor], Tensor]
"""Standard normal numbers shaped as its argument."""


@dataclass(frozen=True)
class Bridge:
    """Tables by time, (T) float64.

    Attributes:
        share: Of the source in the mean (m_t), in [0.001, 0.999], so that every division stays finite.
        variance: Of the noise (v_t).
    """

    share: Float64[Tensor, " t"]
    variance: Float64[Tensor, " t"]

    def __len__(self) -> int:
        return len(self.share)

    def to(self, device: torch.device) -> Bridge:
        """The same tables on a device."""
        return Bridge(self.share.to(device), self.variance.to(device))

    @property
    def share_before(self) -> Float64[Tensor, " t"]:
        """Share of the source one time earlier; 0 at first."""
        return _later(self.share)

    @property
    def variance_before(self) -> Float64[Tensor, " t"]:
        """Variance one time earlier; 0 at first."""
        return _later(self.variance)

    @property
    def transition_variance(self) -> Float64[Tensor, " t"]:
        """Of the state given the one a time earlier."""
        return self.variance - self.variance_before * ((1 - self.share) / (1 - self.share_before)) ** 2

    @property
    def posterior_variance(self) -> Float64[Tensor, " t"]:
        """Of the state a time earlier given this one and both ends."""
        return self.transition_variance * self.variance_before / self.variance


def make_bridge(n: int = 1000, *, scale: float = 1.0, course: Course = "linear") -> Bridge:
    """Tables of a bridge.

    Args:
        n: Times.
        scale: Of the variance (s), which is at most s / 2.
        course: Of the source's share: `linear`, or `sin`, which is exponential in spite of the authors' name.
    """
    # On the CPU also where a model is built without memory, as the check below reads them.
    if course == "linear":
        share = torch.linspace(0.001, 0.999, n, dtype=torch.float64, device="cpu")
    else:
        share = 1.0075 ** torch.linspace(0, n, n, dtype=torch.float64, device="cpu")
        share = share / share[-1]
        share[-1] = 0.999
    variance = 2 * scale * (share - share**2)
    assert bool((variance > 0).all()), variance.min()
    return Bridge(share, variance)


def visited_times(n: int, steps: int | None = None, *, spacing: Literal["linear", "cosine"] = "linear") -> list[int]:
    """Times that a sampler visits, falling from n - 1 to 0.

    Args:
        n: Of the bridge.
        steps: Entries; None for all times. `cosine` may give fewer, as it drops duplicates.
        spacing: `linear`: equal strides down to 1 and 0; `cosine`: denser at both ends.

    Raises:
        ValueError: Fewer than 3 steps, or more than times.
    """
    if steps is None:
        return list(range(n - 1, -1, -1))
    if not 3 <= steps <= n:
        raise ValueError(f"{steps} steps over a bridge of {n} times; 3 to {n} expected")
    if spacing == "cosine":
        places = [min(n - 1, int(n / 2 * (1 + math.cos(math.pi * k / steps)))) for k in range(steps)]
        return [*dict.fromkeys(place for place in places if place > 1), 1, 0]
    # In whole numbers: the strides' multiples are often whole, where rounding would decide.
    last, parts = n - 1, steps - 2
    down = [(last * (parts - k)) // parts for k in range(parts + 1) if last * (parts - k) > parts]
    return [*down, 1, 0]


def at_time(table: Float64[Tensor, " t"], t: Int[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
    """An entry for each picture, float32, shaped to multiply it."""
    return table[t].float().view(-1, *[1] * (like.ndim - 1))


def bridge_state(
    bridge: Bridge,
    x0: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    t: Int[Tensor, " b"],
    noise: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """The state at each picture's time (equation 5)."""
    share = at_time(bridge.share, t, x0)
    return (1 - share) * x0 + share * y + at_time(bridge.variance.sqrt(), t, x0) * noise


def bridge_target(
    objective: Objective,
    state: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """What the network is to give; `grad` is m_t (y - x_0) + √v_t ε (equation 13), which is what the state adds."""
    if objective == "grad":
        return state - x0
    return noise if objective == "noise" else y - x0


def target_from(
    bridge: Bridge,
    objective: Objective,
    state: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    t: Int[Tensor, " b"],
    output: Float[Tensor, "b c h w"],
) -> Float[Tensor, "b c h w"]:
    """The clean target x_0 that the network's output means; from `noise` it is divided by as little as 0.001."""
    output = output.float()
    if objective == "grad":
        return state - output
    if objective == "ysubx":
        return y - output
    share = at_time(bridge.share, t, state)
    return (state - share * y - at_time(bridge.variance.sqrt(), t, state) * output) / (1 - share)


def bridge_step(
    bridge: Bridge,
    state: Float[Tensor, "b c h w"],
    x0: Float[Tensor, "b c h w"],
    y: Float[Tensor, "b c h w"],
    noise: Float[Tensor, "b c h w"] | None,
    *,
    t: Int[Tensor, " b"],
    until: Int[Tensor, " b"],
    eta: float,
    eta_mode: EtaMode,
) -> Float[Tensor, "b c h w"]:
    """The state at an earlier time, given the clean target.

    Args:
        bridge: Tables.
        state: At time `t`.
        x0: Clean target, as far as known.
        y: Source.
        noise: None where eta is 0.
        t: Of each picture.
        until: Earlier than `t`.
        eta: Share of noise; 1 is the bridge itself.
        eta_mode: `marginal` keeps the residual's variance at v_n for every eta; `reference` multiplies the noise alone.
    """
    m, v = (at_time(table, t, state) for table in (bridge.share, bridge.variance))
    m_next, v_next = (at_time(table, until, state) for table in (bridge.share, bridge.variance))
    fresh = (v - v_next * (1 - m) ** 2 / (1 - m_next) ** 2) * v_next / v
    taken = eta**2 * fresh if eta_mode == "marginal" else fresh
    kept = ((v_next - taken).clamp(min=0) / v).sqrt()
    residual = state - (1 - m) * x0 - m * y
    mean = (1 - m_next) * x0 + m_next * y + kept * residual
    return mean if noise is None else mean + eta * fresh.clamp(min=0).sqrt() * noise


@torch.no_grad()
def walk_bridge(
    network: Network,
    y: Float[Tensor, "b c h w"],
    *,
    bridge: Bridge,
    times: Sequence[int],
    noise: Noise,
    objective: Objective = "grad",
    eta: float = 1.0,
    eta_mode: EtaMode = "marginal",
    clip: bool = True,
    boot: bool = False,
) -> Iterator[Float[Tensor, "b c h w"]]:
    """Every state from the source to the target, the last being the sample.

    Args:
        network: State and times to the objective; called once a time, with `boot` once more.
        y: Source in [-1, 1].
        bridge: Tables on the device of `y`.
        times: Falling to 0.
        noise: Called once a step but the last, and first of all with `boot`; not at all where eta is 0.
        objective: What the network gives.
        eta: See `bridge_step`.
        eta_mode: See `bridge_step`.
        clip: Keep the clean target in [-1, 1] on the way.
        boot: Start with the noise of the first time instead of the bare source. A walk without noise of its own
            (`marginal`, eta 0) has none at all otherwise, unlike anything the network was trained on.
    """
    y = y.float()

    def clean(state: Tensor, time: int) -> tuple[Tensor, Tensor]:
        t = torch.full((len(y),), time, device=y.device)
        x0 = target_from(bridge, objective, state, y, t, network(state, t))
        return (x0.clamp(-1, 1) if clip else x0), t

    state = y
    if boot:
        x0, t = clean(y, times[0])
        state = bridge_state(bridge, x0, y, t, noise(y))
    yield state
    for i, time in enumerate(times):
        x0, t = clean(state, time)
        if i == len(times) - 1:
            yield x0
            return
        until = torch.full_like(t, times[i + 1])
        drawn = noise(y) if eta > 0 else None
        state = bridge_step(bridge, state, x0, y, drawn, t=t, until=until, eta=eta, eta_mode=eta_mode)
        yield state


def sample_of(walk: Iterator[Float[Tensor, "b c h w"]]) -> Float[Tensor, "b c h w"]:
    """The last state of a walk; the others are let go on the way."""
    return deque(walk, maxlen=1).pop()


def _later(table: Float64[Tensor, " t"]) -> Float64[Tensor, " t"]:
    """The table moved on by one time, from 0."""
    return torch.cat([table.new_zeros(1), table[:-1]])
