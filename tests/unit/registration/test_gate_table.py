"""The table of the verdict's limits in the docs holds the defaults, and all of them."""

import re
from pathlib import Path

import pytest

from hepipe.registration.verdict import FAR
from hepipe.specs.registration import ConsecutiveGateSpec, GateSpec

DOCS = Path(__file__).parents[3] / "docs" / "registration.md"

ROWS = {
    "failed: similarity below": ("min_similarity",),
    "failed: lead of structure below": ("min_stiff_lead",),
    "failed: tissue Dice below": ("min_tissue_dice",),
    "failed: landmarks off by (median / p90)": ("max_p50_um", "max_p90_um"),
    "review: similarity below": ("review_similarity",),
    "review: similarity before the deformable steps below": ("review_stiff",),
    "review: lead below": ("review_stiff_lead",),
    "review: landmarks or windows off by (median / p90)": ("max_p50_um", "max_p90_um"),
    "review: windows that agree, less than": ("min_kept_frac",),
    "review: refinement dropped or ended early": ("needs_refinement",),
    "review: size of the tissue against the stated mpp": ("scale_tolerance",),
    "review: tissue folded, more than": ("max_fold_frac",),
}


def written():
    """Of each row its two cells."""
    text = DOCS.read_text(encoding="utf-8").partition("## The verdict\n")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    assert rows[0] == ["verdict", "restained", "consecutive"]
    return {row[0]: tuple(row[1:]) for row in rows[2:]}


def numbers(cell):
    if cell in ("yes", "no"):
        return [cell == "yes"]
    return [float(number) / (100 if cell.endswith("%") else 1) for number in re.findall(r"[\d.]+", cell)]


def test_every_limit_has_a_row_and_every_row_a_limit():
    assert written().keys() == ROWS.keys()
    assert {name for names in ROWS.values() for name in names} == GateSpec.model_fields.keys()


@pytest.mark.parametrize(("place", "gate"), [(0, GateSpec()), (1, ConsecutiveGateSpec())])
def test_the_table_holds_the_defaults(place, gate):
    cells = {row: numbers(found[place]) for row, found in written().items()}
    limits = {
        row: [getattr(gate, name) * (FAR if row.startswith("failed: landmarks") else 1) for name in names]
        for row, names in ROWS.items()
    }
    assert cells == {row: pytest.approx(values) for row, values in limits.items()}
