"""Commands from tiles to the index: tile, grade, assemble."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepipe.cli.options import InPath, OutPath, SpecJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hepipe.slides.reader import Slide
    from hepipe.specs.tiling import StoreSpec, TilingSpec
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
    from hepipe.cli.measuring import case_inputs, case_measures, case_status, network_inputs, open_network
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
    network = open_network(learned, tile_px=tiling.tile_px, mpp=tiling.mpp)
    provenance = Provenance(
        artefact="tiles",
        subject=case.case_id,
        spec=tiling.model_dump(mode="json"),
        inputs={
            **case_inputs(case, registered),
            "stains": digest(record.model_dump(mode="json")),
            **network_inputs(network),
        },
        status=case_status(case, registered, masks).then(record.provenance.status),
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
                measures, dab_mask = case_measures(record, case.section, network)
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
