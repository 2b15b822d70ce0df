"""Commands on all stores of a data set at once, by threads of this machine or a dask cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hepipe.cli.options import OutPath, SpecJson

cohort_app = typer.Typer(
    no_args_is_help=True, help="Numbers of a whole data set; the same for any number of threads or a cluster."
)

Index = Annotated[Path, typer.Option(exists=True, help="index.parquet of a data set.")]
OneSplit = Annotated[Literal["train", "val", "test"] | None, typer.Option(help="Only these tiles.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Threads; one for each core when left out.")]
Address = Annotated[
    str | None, typer.Option("--scheduler", help="A dask scheduler of your own, tcp://host:8786, in place of threads.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(cohort_app, name="cohort")


@cohort_app.command()
def statistics(
    index: Index, table: OutPath, record: OutPath, split: OneSplit = None, workers: Workers = None, at: Address = None
) -> None:
    """Colours, tissue and DAB by case and split: a table with histograms, and a record of the means."""
    from hepipe.dataset.cohort import Cohort
    from hepipe.dataset.cohort_statistics import STATISTICS
    from hepipe.dataset.cohort_statistics import statistics as measured
    from hepipe.dataset.schedule import Scheduler
    from hepipe.stores.cases import write_record
    from hepipe.stores.tables import write_table

    cohort = Cohort(index, split=split)
    rows, numbers = measured(cohort, Scheduler(workers, at))
    write_table(rows, table, STATISTICS, numbers.provenance)
    write_record(record, numbers)
    for group in numbers.groups:
        if group.level != "case":
            dab = "no DAB masks" if group.dab_frac is None else f"DAB {group.dab_frac:.1%}"
            typer.echo(
                f"{group.split or cohort.name}: {group.n_tiles} tiles, {group.area_mm2:.2f} mm², "
                f"tissue {group.tissue_frac:.1%}, {dab}"
            )


@cohort_app.command()
def features(index: Index, table: OutPath, split: OneSplit = None, workers: Workers = None, at: Address = None) -> None:
    """Colour, stain and texture features of each tile, without weights."""
    from hepipe.dataset.cohort import Cohort
    from hepipe.dataset.cohort_features import FEATURES, NAMES
    from hepipe.dataset.cohort_features import features as measured
    from hepipe.dataset.schedule import Scheduler
    from hepipe.stores.tables import write_table

    cohort = Cohort(index, split=split)
    rows = measured(cohort, Scheduler(workers, at))
    write_table(rows, table, FEATURES, cohort.provenance("cohort_features"))
    typer.echo(f"{cohort.name}: {len(rows)} tiles, {len(NAMES)} features")


@cohort_app.command("stain-prior")
def prior(
    index: Index,
    record: OutPath,
    spec: SpecJson = "{}",
    split: OneSplit = None,
    workers: Workers = None,
    at: Address = None,
) -> None:
    """The median over cases of their stain vectors and white points, and what each case brought to it."""
    from hepipe.dataset.cohort import Cohort
    from hepipe.dataset.schedule import Scheduler
    from hepipe.dataset.stain_prior import stain_prior
    from hepipe.errors import ConfigError
    from hepipe.specs.stains import StainsSpec
    from hepipe.stores.cases import write_record

    wanted = StainsSpec.model_validate_json(spec)
    if wanted.vectors == "fixed":
        raise ConfigError("stains.vectors is fixed, so every case has the same; macenko or vahadane give a prior")
    cohort = Cohort(index, split=split)
    found = stain_prior(cohort, Scheduler(workers, at), wanted)
    write_record(record, found)
    for name, stains in (("H&E", found.he), ("IHC", found.ihc)):
        if stains is None:
            typer.echo(f"{cohort.name}, {name}: no prior, as none of {len(found.cases)} cases has plausible vectors")
        else:
            typer.echo(
                f"{cohort.name}, {name}: vectors of {stains.n_vectors} of {len(found.cases)} cases, "
                f"which lie {stains.turn_deg[0]:.1f} and {stains.turn_deg[1]:.1f} degrees from it (median)"
            )


@cohort_app.command()
def convert(
    index: Index,
    folder: Annotated[Path, typer.Option(help="Where the other data set goes; run again, it goes on.")],
    codec: Annotated[
        Literal["greendelta", "jxl", "zstd", "raw"] | None, typer.Option(help="Of the tiles; over that of --spec.")
    ] = None,
    spec: SpecJson = "{}",
    workers: Workers = None,
    at: Address = None,
) -> None:
    """Write a data set with the same tiles and index in another codec, a store a task."""
    import json

    from hepipe.dataset.conversion import convert_cohort
    from hepipe.dataset.schedule import Scheduler
    from hepipe.specs.tiling import StoreSpec

    wanted = StoreSpec.model_validate({**json.loads(spec), **({} if codec is None else {"codec": codec})})
    count = convert_cohort(index, folder, wanted, Scheduler(workers, at))
    typer.echo(f"{count} stores in {wanted.codec}")
