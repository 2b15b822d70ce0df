"""Commands for the person who keeps and drops tiles: the page, its server, and two readers merged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hepipe.cli.options import OutPath
from hepipe.errors import ConfigError

if TYPE_CHECKING:
    from typer import Context
else:
    # What typer really hands over is of this class, which its own `Context` stands for in annotations.
    Context = typer.Context.__base__

curate_app = typer.Typer(
    help="Look through the tiles of a data set and decide which stay.", invoke_without_command=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(curate_app, name="curate")


@curate_app.callback()
def curate(
    context: Context,
    folder: Annotated[Path | None, typer.Option(exists=True, file_okay=False, help="A data set's results.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the page; `curation` in the data set's folder.")] = None,
    cases: Annotated[str, typer.Option(help="Ids of its cases, with commas between; all when empty.")] = "",
    only: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="CSV of the pairs to show, such as disagreements.")
    ] = None,
    reader: Annotated[str, typer.Option(help="Who decides; the decisions' file is named after it.")] = "reader-1",
    reasons: Annotated[str, typer.Option(help="Reasons of a drop by number key, with commas between.")] = "",
    serve: Annotated[bool, typer.Option("--serve", help="Serve the page on this machine and save as it goes.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of 127.0.0.1; 0: any that is free.")] = 8643,
    thumb_px: Annotated[int, typer.Option(min=32, max=512, help="Side of a tile on the contact sheets, px.")] = 128,
    view_px: Annotated[
        int, typer.Option(min=-1, max=4096, help="Side of the zoomed tile, px; 0: none; -1: 512, or the store's own.")
    ] = -1,
    workers: Annotated[int, typer.Option(min=1, help="Threads; the page is the same for any number.")] = 1,
) -> None:
    """Write a page of contact sheets on which a person keeps and drops pairs of tiles; see docs/curation.md."""
    if context.invoked_subcommand is not None:
        return
    from hepipe.dataset.decisions import read_content_ids
    from hepipe.report.curation_page import REASONS, VIEW_PX, check_reader, read_set, write_page

    if folder is None:
        raise ConfigError("curate: --folder is missing: the folder of a data set in the results")
    check_reader(reader)
    place = folder / "curation" if out is None else out
    names = [name for name in (part.strip() for part in cases.split(",")) if name]
    found = read_set(folder, names, None if only is None else set(read_content_ids(only)))
    given = tuple(part.strip() for part in reasons.split(",") if part.strip()) or REASONS
    wanted = (0 if serve else VIEW_PX) if view_px < 0 else view_px
    told = write_page(found, place, reader=reader, reasons=given, thumb_px=thumb_px, view_px=wanted, workers=workers)
    typer.echo(told, err=True)
    if not serve:
        typer.echo(f"open {place / 'index.html'} in a browser", err=True)
        return
    from hepipe.report.curation_server import CurationServer

    with CurationServer(found, place, reader=reader, port=port) as server:
        typer.echo(f"{server.url}\nOpen it in a browser of this machine; Ctrl+C ends it.", err=True)
        server.run()
        typer.echo(f"{server.file}: {len(server.decisions)} decisions", err=True)


@curate_app.command()
def merge(
    first: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Decisions of the first reader.")],
    second: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Decisions of the second reader.")],
    out: OutPath,
    rule: Annotated[
        Literal["either", "agreed", "first"],
        typer.Option(help="either: dropped when one drops it; agreed: where both say so; first: the first reader."),
    ] = "either",
    disagreements: Annotated[Path | None, typer.Option(help="CSV; beside --out when not given.")] = None,
) -> None:
    """Merge two readers' decisions; Cohen's kappa and the pairs they differ on."""
    from hepipe.dataset.agreement import agreement, describe, disagreements_text, merged
    from hepipe.dataset.agreement import disagreements as differing
    from hepipe.dataset.decisions import read_decisions, write_decisions, write_text

    a, b = read_decisions(first), read_decisions(second)
    rows, differ = merged(a, b, rule), differing(a, b)
    listed = out.with_name(f"{out.stem}-disagreements.csv") if disagreements is None else disagreements
    write_decisions(out, rows)
    write_text(listed, disagreements_text(differ))
    for line in describe(a, b, agreement(a.decisions, b.decisions)):
        typer.echo(line)
    drops = sum(one.decision == "drop" for one in rows)
    typer.echo(f"{out}: {len(rows)} decisions, {drops} drops, by the rule {rule}", err=True)
    typer.echo(f"{listed}: {len(differ)} pairs that the two decide differently", err=True)
