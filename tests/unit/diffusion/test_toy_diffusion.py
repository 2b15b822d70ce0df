"""A tiny conditional diffusion model learns to swap the colours of discs: all shared parts together."""

import math

import pytest
import torch

from hepipe.diffusion.noise import add_noise, cosine_betas, kept_times, make_schedule
from hepipe.diffusion.samplers import sample_ddim
from hepipe.networks.adm import AdmUnet

SIDE, STEPS, BATCH = 64, 150, 2


def discs(n, random):
    """Discs of one colour on another, and the same with both colours swapped; (n, 3, SIDE, SIDE) in [-1, 1]."""
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    inside = torch.zeros(n, 1, SIDE, SIDE)
    for i in range(n):
        for _ in range(4):
            y, x, radius = (
                torch.rand(3, generator=random) * torch.tensor([SIDE, SIDE, 10]) + torch.tensor([0, 0, 5])
            ).tolist()
            inside[i, 0][(rows - y) ** 2 + (columns - x) ** 2 < radius**2] = 1
    a, b = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ([0.8, -0.6, 0.2], [-0.5, 0.6, -0.8]))
    return inside * a + (1 - inside) * b, inside * b + (1 - inside) * a


@pytest.mark.long
def test_a_colour_swap_is_learnt_in_minutes():
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(1)
    schedule = make_schedule(cosine_betas(1000))
    network = AdmUnet(inputs=6, outputs=3, width=32, multipliers=(1, 2), blocks=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(STEPS):
        source, target = discs(BATCH, random)
        i = torch.randint(1000, (BATCH,), generator=random)
        state = add_noise(schedule, target, i, torch.randn(target.shape, generator=random))
        loss = (network(torch.cat([state, source], 1), i) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    source, target = discs(8, random)
    sample = sample_ddim(
        lambda state, times: network(torch.cat([state, source], 1), times.expand(len(state))),
        torch.randn(source.shape, generator=random),
        schedule=make_schedule(cosine_betas(1000), kept_times(1000, "10")),
        predict="x0",
    )
    assert 10 * math.log10(4 / float((sample - target).square().mean())) > 25
