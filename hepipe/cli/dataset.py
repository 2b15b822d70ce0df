"""Commands on a finished data set: verify it, compare two or one with a list, describe it, pack what makes it again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

dataset_app = typer.Typer(no_args_is_help=True, help="Verify, compare, describe and pack data sets.")

Folder = Annotated[
    Path,
    typer.Argument(exists=True, file_okay=False, help="Folder of a data set, such as results/cohort."),
]
Workers = Annotated[int, typer.Option(min=1, help="Threads; the result is the same for any number.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(dataset_app, name="dataset")


@dataset_app.command()
def verify(
    folder: Folder,
    deep: Annotated[bool, typer.Option("--deep", help="Check every byte of the stores and hash their pixels.")] = False,
    workers: Workers = 1,
) -> None:
    """Compute the fingerprint again and name every case and part that differs; exit status 1 where one does."""
    from hepipe.dataset.verify import verify_dataset

    done = verify_dataset(folder, deep=deep, workers=workers)
    for mismatch in done.mismatches:
        typer.echo(str(mismatch))
    looked = f"{done.tiles} tiles, artefacts of {len(done.cases)} cases" + (f", {done.deep} decoded" if deep else "")
    if done.without:
        typer.echo(
            f"the artefacts of {len(done.without)} cases do not lie here: their slides, transforms and sections are "
            "as the card says, which was only checked against itself"
        )
    if done.mismatches:
        typer.echo(f"{done.name}: {len(done.mismatches)} mismatches ({looked})")
        raise typer.Exit(1)
    typer.echo(f"{done.name}: {done.fingerprint}")
    typer.echo(f"is what its card says ({looked})")


@dataset_app.command()
def diff(
    a: Folder,
    b: Folder,
    csv: Annotated[Path | None, typer.Option(help="Write every difference of a tile here.")] = None,
) -> None:
    """Say which tiles two data sets differ in, and why; exit status 1 where they differ."""
    from hepipe.dataset.decisions import write_text
    from hepipe.dataset.diff import diff_datasets

    found = diff_datasets(a, b)
    for line in found.lines():
        typer.echo(line)
    if csv is not None:
        write_text(csv, found.csv())
    if not found.is_empty:
        raise typer.Exit(1)


@dataset_app.command()
def card(
    folder: Folder,
    out: Annotated[Path | None, typer.Option(help="Folder to write; left out: `card` in the data set's.")] = None,
) -> None:
    """Write what a data set is as a page and as Markdown: counts, drops, pairs, terms, warnings, fingerprint."""
    from hepipe.report.dataset_card import write_dataset_card

    where = folder / "card" if out is None else out
    written = write_dataset_card(folder, where)
    typer.echo(f"{where}: {', '.join(written[:2])} and {len(written) - 2} pictures")


@dataset_app.command()
def pack(
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="Folder to write; it must not exist.")],
) -> None:
    """Copy what a data set is made again from: transforms, sections, decisions, splits and card, without pixels."""
    from hepipe.dataset.pack import pack_dataset

    packed = pack_dataset(folder, out)
    typer.echo(f"{out}: {packed.cases} transforms, {packed.files} files, {packed.nbytes / 1e6:.2f} MB")
    typer.echo(f"name it in key transforms of a data set to make {packed.name} again without registering")


@dataset_app.command()
def agreement(
    folder: Folder,
    names: Annotated[Path, typer.Option("--list", help="Names that others kept, text or CSV, such as BCI-clean's.")],
) -> None:
    """Compare a list of hand-kept tiles with our own filters on the whole imported set: both verdicts and kappa."""
    import json

    from hepipe.dataset.cases import IMPORTED
    from hepipe.dataset.decisions import write_text
    from hepipe.importers.agreement import list_agreement
    from hepipe.importers.bci import read_list
    from hepipe.stores.tables import TILES, VERDICTS, read_table

    found = list_agreement(
        read_table(folder / "tiles" / f"{IMPORTED}.parquet", TILES),
        read_table(folder / "verdict" / f"{IMPORTED}.parquet", VERDICTS),
        read_list(names),
    )
    for split, one in found.items():
        kappa = "undefined" if one.kappa is None else f"{one.kappa:.2f}"
        typer.echo(
            f"{split}: of {one.n} tiles both keep {one.both_keep}, the list alone {one.list_only}, the filters alone "
            f"{one.filters_only}, neither {one.both_drop}; kappa {kappa}, cases unknown: interval not computed"
        )
        if one.reasons_list_only:
            told = ", ".join(f"{reason} {count}" for reason, count in one.reasons_list_only.items())
            typer.echo(f"{split}: what the list keeps the filters drop for {told}")
    record = {split: one.model_dump(mode="json") for split, one in found.items()}
    write_text(folder / "agreement.json", json.dumps(record, indent=1) + "\n")
