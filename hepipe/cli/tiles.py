"""Commands from tiles to the index: tile, grade, assemble."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hepipe.cli.options import InPath, OutPath, SpecJson

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from hepipe.quality.learned import Learned
    from hepipe.slides.reader import Slide
    from hepipe.specs.registration import Section
    from hepipe.specs.stains import StainsSpec
    from hepipe.specs.tiling import StoreSpec, TilingSpec
    from hepipe.status import CaseStatus
    from hepipe.stores.arrays import Registered, TissueMasks
    from hepipe.stores.cases import CaseStains, CheckedCase, SlideStains
    from hepipe.tiling.cut import DabMask, Measure
    from hepipe.tiling.grid import Cell
    from hepipe.tiling.passing import Passed

# The file of a failed case may be missing, so these may not exist.
SlidePath = Annotated[Path, typer.Option(help="The slide file.")]
StoreJson = Annotated[str, typer.Option("--store", help="Config section `store` as JSON; {} for its defaults.")]
LearnedJson = Annotated[str, typer.Option("--learned", help="Config section `quality.learned` as JSON; empty: none.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads; the result is the same for any number.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (tile, grade, assemble):
        app.command()(command)


def tile(
    he: SlidePath,
    ihc: SlidePath,
    checked: InPath,
    transform: InPath,
    tissue: InPath,
    stains: InPath,
    tiles: OutPath,
    index: OutPath,
    spec: SpecJson = "{}",
    store_spec: StoreJson = "{}",
    learned: LearnedJson = "",
    workers: Workers = 1,
) -> None:
    """Cut one registered pair into tiles, measured and hashed in one pass."""
    from hepipe.cli.pairs import open_pair
    from hepipe.errors import SlideError
    from hepipe.slides.open import decoder_of
    from hepipe.specs.tiling import StoreSpec, TilingSpec
    from hepipe.status import failed
    from hepipe.stores.arrays import read_registered, read_tissue, whole, write_group
    from hepipe.stores.cases import read_checked, read_stains
    from hepipe.stores.partial import discard_partial
    from hepipe.stores.provenance import Provenance, digest
    from hepipe.stores.tables import TILES, write_table
    from hepipe.stores.tiles import TileWriter
    from hepipe.tiling.cut import ARRAYS, cut_case, cut_key, untrusted_fracs
    from hepipe.tiling.keep import keep_cells

    case, registered, masks = read_checked(checked), read_registered(transform), read_tissue(tissue)
    record = read_stains(stains)
    tiling, storing = TilingSpec.model_validate_json(spec), StoreSpec.model_validate_json(store_spec)
    network = _learned(learned, tile_px=tiling.tile_px, mpp=tiling.mpp)
    provenance = Provenance(
        artefact="tiles",
        subject=case.case_id,
        spec=tiling.model_dump(mode="json"),
        inputs={**_inputs(case, registered), "stains": digest(record.model_dump(mode="json")), **_told_of(network)},
        status=_status(case, registered, masks).then(record.provenance.status),
    )
    if not provenance.status.failed:
        try:
            from_level0 = tiling.kernel == "area_level0"
            with contextlib.ExitStack() as opened:
                he_slide, ihc_slide = opened.enter_context(open_pair(he, ihc, case, from_level0=from_level0))
                kept = keep_cells(he_slide, masks, tiling, case_id=case.case_id)
                cells = kept.cells
                provenance = provenance.model_copy(update={"told": kept.told})
                if not kept.told["n_inside"]:
                    where = " within the regions to use" if masks.regions is not None else ""
                    raise SlideError(
                        he_slide.slide_id,
                        f"no tile has {tiling.min_tissue_frac:.0%} tissue{where}, the most is {kept.most:.0%}; "
                        "lower tiling.min_tissue_frac or tile_px",
                    )
                assert registered.ihc_from_he is not None
                measures, dab_mask = _measures(record, case.section, network)
                trust = registered.evidence.get("trust")
                untrusted = None
                if trust is not None:
                    grid_um = registered.ihc_from_he.grid_um
                    untrusted = untrusted_fracs(cells, trust, masks, grid_um=grid_um, he_mpp=he_slide.mpp)
                passed, told = _as_scanned(he_slide, cells, tiling, storing)
                decoders = {"he": decoder_of(he_slide), "ihc": decoder_of(ihc_slide)}
                provenance = provenance.model_copy(update={"told": {**kept.told, **told, "decoders": decoders}})
                with TileWriter(
                    tiles,
                    provenance,
                    mpp=tiling.mpp,
                    tile_px=tiling.tile_px,
                    arrays=ARRAYS,
                    spec=storing,
                    passthrough={} if passed is None else {"he": passed.codec},
                    key=cut_key(case, cells, untrusted),
                ) as store:
                    rows = cut_case(
                        he_slide,
                        ihc_slide,
                        case=case,
                        ihc_from_he=registered.ihc_from_he,
                        cells=cells,
                        spec=tiling,
                        measures=measures,
                        dab_mask=dab_mask,
                        store=store,
                        workers=workers,
                        untrusted=untrusted,
                        passed=passed,
                    )
                    # Their decoded tiles are not held beside the table.
                    opened.close()
                    # The table first: a store in its place is not gone on with.
                    write_table(rows, index, TILES, provenance)
                    store.finish()
            unreadable = sum(row["problem"] != "" for row in rows)
            lost = f", {unreadable} more cannot be read: the table says why" if unreadable else ""
            typer.echo(f"case {case.case_id}: {len(rows) - unreadable} tiles{lost}")
            return
        except SlideError as error:
            provenance = provenance.model_copy(update={"status": failed("tiling", error.reason)})
    discard_partial(tiles)
    with whole(tiles) as beside:
        write_group(beside, provenance)
    write_table([], index, TILES, provenance)
    typer.echo(f"case {case.case_id}: failed at {provenance.status.stage}: {provenance.status.reason}")


def grade(index: InPath, verdict: OutPath, spec: SpecJson = "{}") -> None:
    """Say which tiles are kept and why the others are not, from the table alone."""
    from hepipe.quality.verdict import grade as grade_tiles
    from hepipe.quality.verdict import grade_status
    from hepipe.specs.quality import QualitySpec
    from hepipe.stores.provenance import Provenance
    from hepipe.stores.tables import TILES, VERDICTS, read_provenance, read_table, write_table

    quality = QualitySpec.model_validate_json(spec)
    made = read_provenance(index)
    verdicts = grade_tiles(read_table(index, TILES), quality)
    status = made.status.then(grade_status(verdicts, quality))
    provenance = Provenance(
        artefact="verdict",
        subject=made.subject,
        spec=quality.model_dump(mode="json"),
        inputs=made.inputs,
        status=status,
    )
    write_table(verdicts, verdict, VERDICTS, provenance)
    kept = sum(row["keep"] for row in verdicts)
    typer.echo(f"{made.subject}: {kept} of {len(verdicts)} tiles kept{'; ' + status.reason if status.reason else ''}")


def assemble(
    folder: Annotated[Path, typer.Option(exists=True, file_okay=False, help="Results folder of the data set.")],
    cases: Annotated[str, typer.Option(help="Case ids with commas between, or `imported`.")],
    index: OutPath,
    card: OutPath,
    spec: SpecJson = "{}",
    decisions: Annotated[list[Path] | None, typer.Option(help="Decisions of `hepipe curate`, a CSV a reader.")] = None,
    curation: Annotated[str, typer.Option(help="Config section `curation` as JSON; {} for its defaults.")] = "{}",
    curated: Annotated[Path | None, typer.Option(help="CSV of every decision and what became of it.")] = None,
    funnel: Annotated[Path | None, typer.Option(help="JSON of what each step and filter drops.")] = None,
) -> None:
    """Follow people's decisions, divide the patients, write the index of kept tiles and the card with fingerprint."""
    from hepipe.cli.funnel import with_funnel
    from hepipe.cli.splits import say_splits, tile_reader
    from hepipe.dataset.card import write_card
    from hepipe.dataset.cases import read_case
    from hepipe.dataset.curation import curate, effects_text
    from hepipe.dataset.decisions import read_decisions, write_text
    from hepipe.dataset.index import assemble as assemble_cases
    from hepipe.quality.funnel import write_funnel
    from hepipe.specs.dataset import CurationSpec, SplitsSpec
    from hepipe.stores.tables import INDEX, write_table

    ids = [name for name in (part.strip() for part in cases.split(",")) if name]
    files = [read_decisions(path) for path in decisions or ()]
    parts, done = curate([read_case(folder, name) for name in ids], files, CurationSpec.model_validate_json(curation))
    splits = SplitsSpec.model_validate_json(spec)
    rows, made = assemble_cases(folder.name, parts, splits, curated=done, pixels=tile_reader(folder))
    counted, made = with_funnel(folder, parts, done, rows, made)
    write_table(rows, index, INDEX, made.provenance)
    write_card(card, made)
    if funnel is not None:
        write_funnel(funnel, counted)
    if curated is not None:
        write_text(curated, effects_text(done.applied))
    if made.curation is not None:
        told = made.curation
        typer.echo(f"curation: {told.n_decisions} decisions, {told.n_dropped} tiles dropped by them")
    for split, part in made.splits.items():
        scores = ", ".join(f"{score}: {count}" for score, count in part.by_score.items())
        outside = f" and {part.outside} from beside the tumour" if part.outside else ""
        typer.echo(f"{split}: {part.tiles} tiles{outside} of {part.patients} patients ({scores})")
    say_splits(made)
    for warning in made.warnings:
        if not warning.startswith("leak: "):
            typer.echo(f"warning: {warning}")


def _status(case: CheckedCase, registered: Registered, masks: TissueMasks) -> CaseStatus:
    from hepipe.status import OK, failed

    no_size = "nobody says what a px measures; fill mpp_he and mpp_ihc in its row of the slide sheet with µm per px"
    own = failed("tiling", no_size) if case.mpp_unknown else OK
    return case.provenance.status.then(registered.provenance.status).then(masks.provenance.status).then(own)


def _as_scanned(
    he: Slide, cells: Sequence[tuple[Cell, float]], tiling: TilingSpec, storing: StoreSpec
) -> tuple[Passed | None, dict[str, str]]:
    """How the H&E tiles are passed through, where the config asks for it, and what provenance says of it."""
    from hepipe.tiling.passing import pass_through

    if storing.codec != "passthrough":
        return None, {}
    way = pass_through(he, [cell.box_px0 for cell, _ in cells], mpp=tiling.mpp, tile_px=tiling.tile_px)
    if isinstance(way, str):
        return None, {"passthrough": way}
    return way, {"passthrough": "the H&E tiles are as they were scanned"}


def _inputs(case: CheckedCase, registered: Registered) -> dict[str, str]:
    slides = {"he": case.he, "ihc": case.ihc}
    inputs = {name: facts.content_sha256 for name, facts in slides.items() if facts is not None}
    return {**inputs, "transform": registered.digest} if registered.digest else inputs


def _estimated(
    tissue: np.ndarray, whole: np.ndarray, stain: Literal["he", "ihc"], spec: StainsSpec, batch: str | None = None
) -> SlideStains:
    import dataclasses

    from hepipe.stains.estimate import estimate, white_point
    from hepipe.stores.cases import SlideStains

    white = white_point(whole) if spec.white == "auto" else None
    found = estimate(tissue, stain=stain, spec=spec, white=white, batch=batch)
    return SlideStains.model_validate(dataclasses.asdict(found))


def _learned(section: str, *, tile_px: int, mpp: float) -> Learned | None:
    """The user's own network, where the config names one."""
    if not section:
        return None
    from hepipe.quality.learned import Learned
    from hepipe.specs.learned import LearnedSpec

    return Learned(LearnedSpec.model_validate_json(section), tile_px=tile_px, mpp=mpp)


def _told_of(network: Learned | None) -> dict[str, str]:
    return {} if network is None else network.inputs


def _measures(record: CaseStains, section: Section, network: Learned | None = None) -> tuple[list[Measure], DabMask]:
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


def _say_stains(record: CaseStains) -> None:
    for name, slide in (("H&E", record.he), ("IHC", record.ihc)):
        if slide is None:
            typer.echo(f"{record.case_id}: failed at {record.provenance.status.stage}")
            return
        notes = "".join(f"; {note}" for note in slide.notes)
        typer.echo(f"{record.case_id} {name}: {slide.method} vectors {slide.first}, {slide.second}{notes}")
