"""Commands for people that look after tile stores: info, verify, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hepipe.cli.options import SpecJson

StorePath = Annotated[Path, typer.Argument(help="A tile store, such as results/cohort/tiles/c1.zarr.")]
Workers = Annotated[int, typer.Option(min=1, help="Threads; the result is the same for any number.")]
Codec = Annotated[
    Literal["greendelta", "jxl", "zstd", "jpeg", "raw", "passthrough"] | None,
    typer.Option(help="What the tiles are kept in; over that of --spec."),
]

store_app = typer.Typer(no_args_is_help=True, help="Look at tile stores, verify and convert them.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(store_app, name="store")


@store_app.command()
def info(path: StorePath) -> None:
    """Say what a store holds, how it was made and how large it is."""
    from hepipe.stores.upkeep import as_lines, open_any

    for line in as_lines(open_any(path)):
        typer.echo(line)


@store_app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(help="Tile stores.")],
    pixels: Annotated[bool, typer.Option(help="Decode every tile too.")] = False,
    workers: Workers = 1,
) -> None:
    """Name every file and tile that is not as it was written; exit status 1 where there is one."""
    from hepipe.errors import StoreError
    from hepipe.stores.upkeep import verify as look

    damaged = False
    for path in paths:
        try:
            problems = look(path, pixels=pixels, workers=workers)
        except StoreError as error:
            problems = [str(error)]
        for problem in problems:
            typer.echo(f"{path}: {problem.removeprefix(f'{path}: ')}")
        if not problems:
            typer.echo(f"{path}: whole")
        damaged |= bool(problems)
    if damaged:
        raise typer.Exit(1)


@store_app.command()
def convert(
    source: StorePath,
    target: Annotated[Path, typer.Argument(help="Where the other goes; written whole or not at all.")],
    codec: Codec = None,
    spec: SpecJson = "{}",
    workers: Workers = 1,
) -> None:
    """Write a store's tiles with another codec, provenance and order kept; a killed one is gone on with."""
    import json

    from hepipe.specs.tiling import StoreSpec
    from hepipe.stores.upkeep import convert as carry
    from hepipe.stores.upkeep import is_lossless, open_any

    wanted = StoreSpec.model_validate({**json.loads(spec), **({} if codec is None else {"codec": codec})})
    count = carry(source, target, wanted, workers=workers)
    typer.echo(f"{target}: {count} tiles")
    if not is_lossless(open_any(source), wanted):
        typer.echo("its pixels are others: he_sha256 and ihc_sha256 of the tile table are those of the source")
