"""Command `export`: a data set in the layouts that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hepipe.cli.options import InPath

Kind = Literal["ab", "pix2pix", "webdataset", "geojson", "huggingface", "csv"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    kind: Annotated[Kind, typer.Argument(help="The layout: docs/export.md shows each.")],
    index: InPath,
    out: Annotated[
        Path, typer.Option(help="A folder, new, empty or of an earlier export; written whole or not at all.")
    ],
    split: Annotated[list[str] | None, typer.Option(help="train, val or test; several times; none: all.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="A case id; several times; none: all.")] = None,
    max: Annotated[int | None, typer.Option(min=1, help="At most so many tiles, evenly spread.")] = None,
    place: Annotated[
        Literal["inside", "outside"], typer.Option(help="outside: those beside the tumour regions, kept for tests.")
    ] = "inside",
    layout: Annotated[
        Literal["cyclegan", "bci", "split"],
        typer.Option(help="ab: trainA and trainB; HE/train and IHC/train; or train/A and train/B."),
    ] = "cyclegan",
    as_: Annotated[
        Literal["png", "stored"],
        typer.Option("--as", help="ab: PNG, or the very JPEGs of the store where a tile is one."),
    ] = "png",
    shard_mb: Annotated[
        int | None, typer.Option(min=1, help="webdataset, huggingface: most MB of a shard; 1000 and 500.")
    ] = None,
    order: Annotated[
        Literal["id", "mixed"], typer.Option(help="webdataset, huggingface: by id, or cases mixed by a hash of it.")
    ] = "id",
    masks: Annotated[bool, typer.Option(help="geojson: outlines of DAB too.")] = True,
    workers: Annotated[int, typer.Option(min=1, help="Threads; the result is the same for any number.")] = 1,
) -> None:
    """Write a data set's tiles for other tools, with card, terms and fingerprint; a killed export is gone on with."""
    from typing import cast, get_args

    from hepipe.errors import ConfigError
    from hepipe.exporters.folders import export_folders, export_side_by_side
    from hepipe.exporters.geojson import export_geojson
    from hepipe.exporters.huggingface import export_huggingface
    from hepipe.exporters.selection import Selection
    from hepipe.exporters.table import export_csv
    from hepipe.exporters.webdataset import export_webdataset
    from hepipe.specs.dataset import Split

    if unknown := sorted(set(split or ()) - set(get_args(Split))):
        raise ConfigError(f"--split {', '.join(unknown)}: {', '.join(get_args(Split))} expected")
    others = {
        "--layout": (layout != "cyclegan", ("ab",)),
        "--as": (as_ != "png", ("ab",)),
        "--shard-mb": (shard_mb is not None, ("webdataset", "huggingface")),
        "--order": (order != "id", ("webdataset", "huggingface")),
        "--no-masks": (not masks, ("geojson",)),
    }
    for option, (given, kinds) in others.items():
        if given and kind not in kinds:
            raise ConfigError(f"export {kind}: {option} is for {' and '.join(kinds)}; leave it out")
    chosen = Selection(index, splits=cast(list[Split], split or []), cases=case or (), most=max, place=place)
    match kind:
        case "ab":
            made = export_folders(chosen, out, layout=layout, stored=as_ == "stored", workers=workers)
        case "pix2pix":
            made = export_side_by_side(chosen, out, workers=workers)
        case "webdataset":
            made = export_webdataset(chosen, out, shard_mb=shard_mb or 1000, order=order, workers=workers)
        case "huggingface":
            made = export_huggingface(chosen, out, shard_mb=shard_mb or 500, order=order, workers=workers)
        case "geojson":
            made = export_geojson(chosen, out, masks=masks)
        case "csv":
            made = export_csv(chosen, out)
    said = ", ".join(f"{count} {name}" for name, count in made.items())
    typer.echo(f"{out}: {len(chosen.rows)} tiles of {chosen.card.name} ({said})")
    if as_ == "stored" and kind == "ab" and made.get("png"):
        typer.echo(f"{made['png']} files are PNG, as no single JPEG in the store makes their tile")
