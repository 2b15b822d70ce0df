"""Commands on stains: a case's vectors, vectors for a batch, thresholds for a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepipe.cli.options import InPath, OutPath, SpecJson
from hepipe.cli.tiles import SlidePath

if TYPE_CHECKING:
    from hepipe.slides.reader import Slide
    from hepipe.specs.stains import StainsSpec
    from hepipe.stores.arrays import Registered, TissueMasks
    from hepipe.stores.cases import SlideStains

stains_app = typer.Typer(no_args_is_help=True, help="Stain vectors and DAB thresholds.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(stains_app, name="stains")


@stains_app.command()
def estimate(
    he: SlidePath,
    ihc: SlidePath,
    checked: InPath,
    transform: InPath,
    tissue: InPath,
    stains: OutPath,
    spec: SpecJson = "{}",
) -> None:
    """Find the stain vectors and white points of both slides from windows of their tissue."""
    from hepipe.cli.measuring import case_inputs, case_status, say_stains
    from hepipe.cli.pairs import open_pair
    from hepipe.errors import SlideError
    from hepipe.specs.stains import StainsSpec
    from hepipe.status import failed
    from hepipe.stores.arrays import read_registered, read_tissue
    from hepipe.stores.cases import CaseStains, read_checked, write_stains
    from hepipe.stores.provenance import Provenance

    case, registered, masks = read_checked(checked), read_registered(transform), read_tissue(tissue)
    wanted = StainsSpec.model_validate_json(spec)
    status = case_status(case, registered, masks)
    found: dict[str, SlideStains] = {}
    if not status.failed:
        try:
            with open_pair(he, ihc, case) as (he_slide, ihc_slide):
                found = {
                    "he": _slide_stains(he_slide, registered, masks, wanted),
                    "ihc": _slide_stains(ihc_slide, registered, masks, wanted, case.batch),
                }
        except SlideError as error:
            status = failed("stains", error.reason)
    provenance = Provenance(
        artefact="stains",
        subject=case.case_id,
        spec=wanted.model_dump(mode="json"),
        inputs=case_inputs(case, registered),
        status=status,
    )
    record = CaseStains(
        case_id=case.case_id, batch=case.batch, he=found.get("he"), ihc=found.get("ihc"), provenance=provenance
    )
    write_stains(stains, record)
    say_stains(record)


@stains_app.command()
def pool(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Results folder of the data set.")],
) -> None:
    """Propose vectors for each staining batch: text for the config, from the cases that are done."""
    from hepipe.dataset.stain_pool import as_yaml, read_records
    from hepipe.dataset.stain_pool import pool as pooled

    typer.echo(as_yaml(pooled(read_records(folder))), nl=False)


@stains_app.command()
def calibrate(
    index: Annotated[Path, typer.Option(exists=True, help="index.parquet of a data set.")],
    record: OutPath,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads; one for each core when left out.")] = None,
) -> None:
    """Find thresholds of weak, moderate and strong DAB from the scores of the training tiles alone."""
    from hepipe.dataset.cohort import Cohort
    from hepipe.dataset.dab_calibration import calibrate as calibrated
    from hepipe.dataset.schedule import Scheduler
    from hepipe.quality.stain import tissue_of
    from hepipe.stores.cases import write_record

    found = calibrated(Cohort(index, split="train"), Scheduler(workers), tissue=tissue_of)
    write_record(record, found)
    weak, moderate, strong = found.thresholds_od
    typer.echo(f"{found.name}: weak from {weak:g}, moderate from {moderate:g}, strong from {strong:g} (DAB index)")
    for score, tiles in found.tiles.items():
        typer.echo(f"  {score}: {found.used[score]} of {tiles} training tiles, {found.cases[score]} cases")
    if few := [score for score, cases in found.cases.items() if cases == 1]:
        typer.echo(f"  one case alone stands for {', '.join(few)}: its staining decides the threshold")
    typer.echo(f"  Youden's J {found.youden[0]:.2f} (1+/2+) and {found.youden[1]:.2f} (2+/3+)")


def _slide_stains(
    slide: Slide, registered: Registered, masks: TissueMasks, spec: StainsSpec, batch: str | None = None
) -> SlideStains:
    from hepipe.cli.measuring import found_stains
    from hepipe.tiling.sample import overview_pixels, tissue_pixels

    transform = registered.ihc_from_he
    assert transform is not None
    is_he = slide.slide_id.endswith("-he")
    tissue = tissue_pixels(
        slide,
        masks,
        count=spec.sample_tiles,
        fixed_mpp=transform.fixed_mpp,
        moved=None if is_he else transform,
    )
    return found_stains(tissue, overview_pixels(slide), "he" if is_he else "ihc", spec, batch)
