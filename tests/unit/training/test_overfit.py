"""Every model that trains learns four drawn pairs by heart: what it is given to reproduce, it comes to reproduce.

Rings lie around large nuclei only, so that neither a copy nor a map of colours is near the IHC. `python
tests/unit/training/overfit_case.py --out GRID.png` saves the pictures.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from overfit_case import RING, best_colour_map, draw_pairs, learn, mean_difference, trained_models

BATCH = draw_pairs()
COPIED = mean_difference(BATCH.he, BATCH.ihc)
RINGS = (BATCH.ihc - torch.tensor(RING).view(3, 1, 1) / 127.5 + 1).abs().sum(1, keepdim=True) < 1e-3


@dataclass(frozen=True)
class Bar:
    """What is asked of a model.

    Attributes:
        steps: That it may take.
        falls: Its loss, or the terms named, end at most at this share of their start.
        terms: That must fall.
        mae: Of the picture, as a share of the untrained model's, and below that of the copied H&E.
        rings: Whether brown must lie where it does in the IHC.
    """

    steps: int
    falls: float
    terms: tuple[str, ...]
    mae: float
    rings: bool = True


# Rings come last: in pix2pix, with its dropout, and in CSSP2P there were none after 300 steps. CUT sees the four IHC
# without knowing whose they are; that is enough for it, but colours come right late.
BARS = {
    "bbdm": Bar(200, 0.6, ("network.loss",), mae=0.5),
    "bcistainer": Bar(300, 0.4, ("generator.pixel",), mae=0.4),
    "pix2pix": Bar(1500, 0.2, ("generator.l1",), mae=0.1),
    "pyramid_pix2pix": Bar(300, 0.5, ("generator.octave1", "generator.octave2"), mae=0.4),
    "cssp2p": Bar(1500, 0.3, ("generator.pyramid",), mae=0.25),
    "cut_pyramid": Bar(600, 0.6, ("generator.contrast", "generator.pyramid"), mae=0.3),
    "asp": Bar(600, 0.6, ("generator.contrast", "generator.asp", "generator.pyramid"), mae=0.3),
    "cut": Bar(1500, 0.6, ("generator.contrast", "generator.identity"), mae=0.3),
    "pixel_map": Bar(300, 0.5, ("map.loss",), mae=0.5, rings=False),
}
FASTEST = ("pyramid_pix2pix",)


def test_the_drawn_ihc_is_neither_the_he_nor_a_map_of_its_colours():
    assert COPIED > 25
    mapped = best_colour_map(BATCH)
    assert 4 < mean_difference(mapped, BATCH.ihc) < COPIED / 2
    brown = torch.tensor(RING).view(3, 1, 1) / 127.5 - 1
    assert float((mapped - brown).abs().sum(1).amin()) > 0.5


def test_every_model_that_trains_has_a_bar():
    assert set(trained_models()) <= set(BARS)


def check(model):
    bar = BARS[model]
    learned = learn(model, BATCH, steps=bar.steps)
    assert all(np.isfinite(values).all() for values in learned.losses.values())
    for term in bar.terms:
        values = learned.losses[term]
        assert np.mean(values[-20:]) < bar.falls * np.mean(values[:5]), term
    before, after = learned.mae
    assert after < bar.mae * before or after < 0.3 * COPIED
    assert after < 0.8 * COPIED
    if bar.rings:
        assert contrast_of_rings(learned.virtual) > 0.3 * contrast_of_rings(BATCH.ihc)
    # Mean colours come near the IHC's, whatever else is asked.
    colours = mean_difference(learned.virtual.mean((0, 2, 3)), BATCH.ihc.mean((0, 2, 3)))
    assert colours < 0.6 * mean_difference(BATCH.he.mean((0, 2, 3)), BATCH.ihc.mean((0, 2, 3)))


def contrast_of_rings(pictures):
    """How much more red than blue the places of rings are than all others, in [-1, 1] units."""
    redness = pictures[:, :1] - pictures[:, 2:]
    return float(redness[RINGS].mean() - redness[~RINGS].mean())


@pytest.mark.parametrize("model", FASTEST)
def test_a_fast_model_learns_four_pairs_by_heart(model):
    check(model)


@pytest.mark.long
@pytest.mark.parametrize("model", sorted(set(BARS) - set(FASTEST)))
def test_a_model_learns_four_pairs_by_heart(model):
    check(model)
