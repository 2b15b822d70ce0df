"""What the commands on slides, on tile sets and on stains have in common: a case's state, stains and measurements."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from hepipe.quality.learned import Learned
    from hepipe.specs.registration import Section
    from hepipe.specs.stains import StainsSpec
    from hepipe.status import CaseStatus
    from hepipe.stores.arrays import Registered, TissueMasks
    from hepipe.stores.cases import CaseStains, CheckedCase, SlideStains
    from hepipe.tiling.cut import DabMask, Measure


def case_status(case: CheckedCase, registered: Registered, masks: TissueMasks) -> CaseStatus:
    """The first failure of what a case went through so far, its px of unknown size included."""
    from hepipe.status import OK, failed

    no_size = "nobody says what a px measures; fill mpp_he and mpp_ihc in its row of the slide sheet with µm per px"
    own = failed("tiling", no_size) if case.mpp_unknown else OK
    return case.provenance.status.then(registered.provenance.status).then(masks.provenance.status).then(own)


def case_inputs(case: CheckedCase, registered: Registered) -> dict[str, str]:
    """Digests of what a case's tiles follow from: both slides and the transform."""
    slides = {"he": case.he, "ihc": case.ihc}
    inputs = {name: facts.content_sha256 for name, facts in slides.items() if facts is not None}
    return {**inputs, "transform": registered.digest} if registered.digest else inputs


def found_stains(
    tissue: np.ndarray, whole: np.ndarray, stain: Literal["he", "ihc"], spec: StainsSpec, batch: str | None = None
) -> SlideStains:
    """The stain vectors and white point of a slide, or of a set's sample.

    Args:
        tissue: uint8 (n, 3), pixels of tissue.
        whole: Likewise, of the whole slide, glass included.
        stain: Which slide it is.
        spec: How they are found.
        batch: Of the IHC, whose vectors stand in where there is almost no DAB.
    """
    import dataclasses

    from hepipe.stains.estimate import estimate, white_point
    from hepipe.stores.cases import SlideStains

    white = white_point(whole) if spec.white == "auto" else None
    found = estimate(tissue, stain=stain, spec=spec, white=white, batch=batch)
    return SlideStains.model_validate(dataclasses.asdict(found))


def open_network(section: str, *, tile_px: int, mpp: float) -> Learned | None:
    """The user's own network, where the config names one."""
    if not section:
        return None
    from hepipe.quality.learned import Learned
    from hepipe.specs.learned import LearnedSpec

    return Learned(LearnedSpec.model_validate_json(section), tile_px=tile_px, mpp=mpp)


def network_inputs(network: Learned | None) -> dict[str, str]:
    """What provenance says of the network; nothing without one."""
    return {} if network is None else network.inputs


def case_measures(
    record: CaseStains, section: Section, network: Learned | None = None
) -> tuple[list[Measure], DabMask]:
    """Every measurement of a tile of this kind of section, and the DAB mask, with the stains of the case bound in."""
    from hepipe.quality.measures import measures_of
    from hepipe.specs.stains import StainsSpec
    from hepipe.stains.dab import tile_mask
    from hepipe.stains.deconvolution import Separator
    from hepipe.stains.matrices import stain_matrix

    assert record.ihc is not None
    spec = StainsSpec.model_validate(record.provenance.spec)
    of_dab = Separator(stain_matrix(record.ihc.first, record.ihc.second), record.ihc.white, stains=(1,))

    def mask(ihc: np.ndarray, mpp: float, measured: Mapping[str, float]) -> np.ndarray:
        return tile_mask(ihc, mpp=mpp, spec=spec, of_dab=of_dab, shift_um=measured.get("shift_um", math.nan))

    measures: list[Measure] = measures_of(record, section, thresholds_od=spec.dab_thresholds_od)
    return [*measures, *([] if network is None else [network])], mask


def say_stains(record: CaseStains) -> None:
    """A line a slide on its vectors, or that there are none."""
    for name, slide in (("H&E", record.he), ("IHC", record.ihc)):
        if slide is None:
            typer.echo(f"{record.case_id}: failed at {record.provenance.status.stage}")
            return
        notes = "".join(f"; {note}" for note in slide.notes)
        typer.echo(f"{record.case_id} {name}: {slide.method} vectors {slide.first}, {slide.second}{notes}")
