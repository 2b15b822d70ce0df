"""What `assemble` says of splits, and the command that gives one fold its own index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepipe.cli.options import InPath, OutPath

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from hepipe.dataset.audit import Pixels
    from hepipe.dataset.card import DatasetCard
    from hepipe.dataset.strata import Stratum

OPEN_STORES = 16


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("fold")(one_fold)


def one_fold(
    index: InPath,
    number: Annotated[int, typer.Option("--fold", min=0, help="Fold that is tested on.")],
    out: OutPath,
) -> None:
    """Write the index that a run with `fold: N` sees: fold N is test, the next one val, the others train."""
    from hepipe.dataset.folds import index_of_fold
    from hepipe.stores.tables import INDEX, read_provenance, read_table, write_table

    made = read_provenance(index)
    rows = index_of_fold(read_table(index, INDEX), number, folds=made.spec.get("folds"), where=str(index))
    write_table(rows, out, INDEX, made.model_copy(update={"told": {**made.told, "fold": number}}))
    counts = ", ".join(f"{name} {sum(row['split'] == name for row in rows)}" for name in ("train", "val", "test"))
    typer.echo(f"fold {number}: tiles {counts}")


def tile_reader(folder: Path) -> Pixels:
    """Reads H&E tiles of the stores below a results folder; the last stores stay open."""
    import functools

    from hepipe.stores.tables import store_beside
    from hepipe.stores.tiles import TileStore

    @functools.lru_cache(maxsize=OPEN_STORES)
    def opened(name: str) -> TileStore:
        return TileStore(store_beside(folder / "index.parquet", name))

    def read(row: Mapping[str, Any]) -> np.ndarray:
        return opened(row["store"]).read("he", row["row_in_store"])

    return read


def say_splits(card: DatasetCard) -> None:
    """Print strata, staining batches, the proof and, in red, leaks that an imported set's own splits have."""
    from hepipe.dataset.card import advice_of

    if card.strata:
        _say_table("tiles | slides | patients", card.strata)
    if card.batches:
        _say_table("by staining batch", card.batches)
    if card.proof is not None:
        for line in (*card.proof.lines(), card.proof.verdict):
            typer.echo(line)
    if card.leaks is not None:
        found = card.leaks
        typer.echo(
            f"leak audit: {found.n_tiles:,} tiles, {found.n_leaks or 'no'} leak{'s' * (found.n_leaks != 1)}; near is "
            f"{found.near_bits} of 63 bits; {found.alike} pairs were alike at a coarse look only"
        )
        for line in found.lines():
            typer.secho(f"LEAK: {line}", fg=typer.colors.RED, err=True)
    if advice := advice_of(card):
        typer.echo(advice)


def _say_table(title: str, strata: Sequence[Stratum]) -> None:
    from hepipe.dataset.strata import table

    head, rows = table(strata)
    head[0] = f"{head[0]} ({title})"
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    for row in [head, *rows]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
