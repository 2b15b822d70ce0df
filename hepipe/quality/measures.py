"""Every measurement of a tile of a case: one list, so that cut and imported tiles carry the same numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from hepipe.quality.blur import blur
from hepipe.quality.crease import crease
from hepipe.quality.doubling import doubling
from hepipe.quality.loss import REACH_UM, SAME_SECTION_REACH_UM, loss
from hepipe.quality.misalignment import misalignment, same_section_misalignment
from hepipe.quality.overstain import overstain
from hepipe.quality.pen import pen
from hepipe.quality.residual import residual
from hepipe.quality.rim import rim
from hepipe.quality.saturation import saturation
from hepipe.quality.shade import shade
from hepipe.quality.stain import stain_amounts
from hepipe.quality.unscanned import unscanned
from hepipe.quality.white import white
from hepipe.specs.registration import Section
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import stain_matrix
from hepipe.stores.cases import CaseStains

Measure = Callable[[np.ndarray, np.ndarray, float], Mapping[str, float]]
"""`(he, ihc, mpp)` of one tile to named numbers."""


def measures_of(record: CaseStains, section: Section, *, thresholds_od: Sequence[float] | None) -> list[Measure]:
    """What is measured of the tiles of a case, its stains bound in.

    Args:
        record: Of a case whose stains were found.
        section: Nuclei are compared and eosin looked for in the same section stained again alone.
        thresholds_od: Calibrated limits of weak, moderate and strong DAB; None: there are none.
    """
    assert record.he is not None
    assert record.ihc is not None
    of_he, of_ihc = (Separator(stain_matrix(one.first, one.second), one.white) for one in (record.he, record.ihc))

    def over_white(measure: Callable[..., Mapping[str, float]], **more: float) -> Measure:
        return functools.partial(measure, white_he=of_he.white, white_ihc=of_ihc.white, **more)

    both: list[Measure] = [
        over_white(white),
        over_white(pen),
        over_white(unscanned),
        saturation,
        crease,
        rim,
        over_white(shade),
        over_white(overstain),
        over_white(blur),
        doubling,
        functools.partial(stain_amounts, of_he=of_he, of_ihc=of_ihc, thresholds_od=thresholds_od),
    ]
    if section == "consecutive":
        return [over_white(loss, reach_um=REACH_UM), misalignment, *both]
    blue_of_he, blue_of_ihc = (
        Separator(stain_matrix(one.first, one.second), one.white, stains=(0,)) for one in (record.he, record.ihc)
    )
    return [
        over_white(loss, reach_um=SAME_SECTION_REACH_UM),
        functools.partial(same_section_misalignment, of_he=blue_of_he, of_ihc=blue_of_ihc),
        over_white(residual),
        *both,
    ]
