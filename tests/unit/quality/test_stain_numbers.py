from pathlib import Path

import numpy as np
import pytest

from hepipe.quality.stain import NOTES, stain_amounts
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix

OF_HE, OF_IHC = (Separator(stain_matrix(HAEMATOXYLIN, other)) for other in (EOSIN, DAB))
PALE = 0.15


def quarters(*dab):
    """A tile of four strips with these amounts of DAB over pale haematoxylin."""
    od = np.repeat(np.array(dab), 32)[None, :].repeat(64, 0)
    units = [np.array(vector) / np.linalg.norm(vector) for vector in (HAEMATOXYLIN, DAB)]
    return np.clip(np.rint(255 * 10 ** -(PALE * units[0] + od[..., None] * units[1])), 0, 255).astype(np.uint8)


def amounts(ihc, **options):
    return stain_amounts(quarters(0, 0, 0, 0), ihc, 0.5, of_he=OF_HE, of_ihc=OF_IHC, **options)


def test_every_number_has_a_note_and_stands_in_the_users_page():
    found = amounts(quarters(0, 0.3, 0.5, 0.9), thresholds_od=(0.4, 0.8, 0.85))
    assert found.keys() == NOTES.keys()
    page = (Path(__file__).parents[3] / "docs" / "stains.md").read_text()
    assert [name for name in NOTES if f"`{name}`" not in page] == []


def test_shares_and_h_score_by_both_sets_of_thresholds():
    found = amounts(quarters(0, 0.3, 0.5, 0.9), thresholds_od=(0.4, 0.8, 0.85))
    assert found["dab_frac"] == pytest.approx(0.75)
    assert found["hscore_px"] == pytest.approx(25 * (1 + 2 + 3))
    assert found["dab_frac_cal"] == pytest.approx(0.5)
    assert found["hscore_px_cal"] == pytest.approx(100 * (0.5 + 0.25 + 0.25))
    assert "hscore_px_cal" not in amounts(quarters(0, 0, 0, 0))


def test_px_where_the_index_means_nothing_are_counted():
    found = amounts(quarters(0, 0.9, 1.2, 2.4))
    assert found["dab_over1_frac"] == pytest.approx(0.5)
    assert found["dab_saturated_frac"] == pytest.approx(0.25)
    assert amounts(quarters(0, 0.3, 0.6, 0.9))["dab_over1_frac"] == 0
