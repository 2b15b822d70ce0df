"""The command that lists models: what the four papers name, what the zoo holds, and what was published of each."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from hepipe.models.overview import Listed
    from hepipe.models.published import Number

COLUMNS = 100
ELSEWHERE = (
    "Reported elsewhere, on other data or with another preset: never rank them with own runs, nor across papers."
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(models)


def models(
    name: Annotated[str | None, typer.Argument(help="One model: presets, sizes and published numbers.")] = None,
    preset: Annotated[str, typer.Option(help="Preset whose size is counted.")] = "paper",
    side_px: Annotated[int, typer.Option(min=1, help="Side of the tile whose multiply-adds are counted, px.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="The zoo's table with sizes, as docs/models.md.")
    ] = False,
) -> None:
    """List the systems of the four papers and the models of the zoo, or everything about one of them."""
    from hepipe.models.overview import find_listed, listed

    if as_markdown:
        typer.echo("\n".join(_markdown([one for one in listed().values() if one.entry is not None], side_px)))
        return
    if name is None:
        rows = list(listed().values())
        typer.echo(json.dumps([_summary(one) for one in rows], indent=1) if as_json else "\n".join(_table(rows)))
        return
    one = find_listed(name)
    size = _size(one, preset, side_px) if one.entry is not None else {}
    if as_json:
        numbers = [{**vars(number), "reported": "elsewhere"} for number in one.numbers]
        typer.echo(json.dumps({**_summary(one), "size": size, "published": numbers}, indent=1))
        return
    typer.echo("\n".join([*_head(one), *_presets(one), *_size_lines(size), *_published(one.numbers)]))


def _summary(one: Listed) -> dict[str, Any]:
    from hepipe.models.overview import parts_in_words

    system, entry = one.system, one.entry
    presets = (
        {}
        if entry is None
        else {
            preset: {
                "tiles": entry.size_in_words(preset),
                "needs": list(entry.needs_of(preset)),
                "parts": parts_in_words(entry, preset),
            }
            for preset in entry.presets
        }
    )
    return {
        "name": one.name,
        "title": one.title,
        "status": one.status,
        "family": one.family,
        "pairing": one.pairing,
        "idea": "" if system is None else system.idea,
        "source": "" if system is None else system.source,
        "needs": "" if system is None else system.needs,
        "reason": "" if system is None else system.reason,
        "named_in": {} if system is None else dict(system.named_in),
        "presets": presets,
        "published_numbers": len(one.numbers),
    }


def _table(rows: list[Listed]) -> Iterator[str]:
    from hepipe.models.overview import IN_THE_ZOO

    widths = (22, 13, 17, 9, 32)
    yield _row(("model", "status", "family", "pairs", "what sets it apart, needs", "numbers"), widths)
    yield "-" * COLUMNS
    for one in rows:
        if one.system is not None:
            needs = f"; needs {one.system.needs}" if one.system.needs else ""
            family, text, count = one.family, one.system.idea + needs, str(len(one.numbers) or "–")
        else:
            family, text, count = "no paper", one.title.partition(";")[0].rstrip("."), "–"
        yield from _wrapped((one.name, one.status, family, one.pairing, text, count), widths)
    yield ""
    ready = sum(one.status == IN_THE_ZOO for one in rows)
    yield from textwrap.wrap(
        f"{ready} in the zoo. `numbers` counts what the four papers print of a model; `hepipe models NAME` shows them "
        "with its presets and sizes.",
        COLUMNS,
    )


def _markdown(rows: list[Listed], side_px: int) -> Iterator[str]:
    """A row for each model of the zoo: what it is, takes and weighs in preset `paper`."""
    yield "| model | paper | presets | pairs | parameters: generator, all | GMAC a tile | takes beside both stains |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for one in rows:
        assert one.entry is not None
        size = _size(one, "paper", side_px)
        counts = size.get("parameters", {})
        largest = next((counts[name] for name in ("generator", "network", "map") if name in counts), 0)
        weighs = f"{_millions(largest)}, {_millions(sum(counts.values()))}" if counts else "none"
        needs = [*one.entry.needs_of("paper"), *filter(None, [_parts(one, "paper")])]
        cells = (
            f"`{one.name}`",
            one.system.source if one.system is not None else one.title.partition(":")[0].lower() + ", a control",
            ", ".join(one.entry.presets),
            one.entry.pairing,
            weighs,
            f"{size['staining_gmac']:,.1f}" if counts else "–",
            ", ".join(needs) or "–",
        )
        yield f"| {' | '.join(cells)} |"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e5 else f"{count:,}"


def _parts(one: Listed, preset: str) -> str:
    from hepipe.models.overview import parts_in_words

    assert one.entry is not None
    return parts_in_words(one.entry, preset)


def _wrapped(cells: tuple[str, ...], widths: tuple[int, ...]) -> Iterator[str]:
    """A row whose long cells go on below."""
    columns = [textwrap.wrap(cell, width - 1) or [""] for cell, width in zip(cells, (*widths, 8), strict=True)]
    for line in range(max(map(len, columns))):
        yield _row(tuple(column[line] if line < len(column) else "" for column in columns), widths)


def _row(cells: tuple[str, ...], widths: tuple[int, ...]) -> str:
    padded = [cell.ljust(width) for cell, width in zip(cells[:-1], widths, strict=True)]
    return ("".join(padded) + cells[-1].rjust(COLUMNS - sum(widths))).rstrip()


def _head(one: Listed) -> Iterator[str]:
    yield f"{one.name}: {one.title}"
    pairs = {"both": "paired or unpaired"}.get(one.pairing, one.pairing)
    about = [one.status, one.family, f"learns from {pairs} tiles" if pairs != "none" else ""]
    yield "  " + " · ".join(part for part in about if part)
    if one.system is None:
        return
    system = one.system
    named = ", ".join(f"{paper} ({part})" for paper, part in system.named_in.items())
    for label, text in (
        ("source", system.source),
        ("idea", system.idea),
        ("needs", system.needs or "nothing beside both stains"),
        ("named in", named),
        ("remark", system.reason),
    ):
        if text:
            yield from textwrap.wrap(text, COLUMNS, initial_indent=f"  {label:<10}", subsequent_indent=" " * 12)


def _presets(one: Listed) -> Iterator[str]:
    from hepipe.models.overview import parts_in_words

    if one.entry is None:
        return
    yield ""
    yield "presets"
    alike: dict[str, list[str]] = {}
    for preset in one.entry.presets:
        takes = [f"tiles of {one.entry.size_in_words(preset)}", *one.entry.needs_of(preset)]
        parts = parts_in_words(one.entry, preset)
        alike.setdefault(", ".join([*takes, parts] if parts else takes), []).append(preset)
    for text, presets in alike.items():
        yield from textwrap.wrap(", ".join(presets), COLUMNS, initial_indent="  ", subsequent_indent="  ")
        yield from textwrap.wrap(text, COLUMNS, initial_indent="      ", subsequent_indent="      ")


def _size(one: Listed, preset: str, side_px: int) -> dict[str, Any]:
    from hepipe.errors import ConfigError
    from hepipe.models.size import on_meta, parameters, staining_gmac

    entry = one.entry
    assert entry is not None
    if preset not in entry.presets:
        raise ConfigError(f"--preset {preset}: {one.name} has {', '.join(entry.presets)}")
    required = [part for part, need in entry.parts_of(preset).items() if need.kind == "run" and not need.optional]
    if required:
        return {"preset": preset, "uncounted": f"it is built from another run's model ({', '.join(required)})"}
    side = entry.largest(side_px, preset)
    if not side:
        raise ConfigError(f"--side-px {side_px}: {one.name} {preset} takes {entry.size_in_words(preset)}")
    method = on_meta(one.name, preset)
    return {
        "preset": preset,
        "parameters": parameters(method),
        "staining_gmac": staining_gmac(method, side),
        "side_px": side,
    }


def _size_lines(size: dict[str, Any]) -> Iterator[str]:
    if not size:
        return
    yield ""
    yield f"size (preset {size['preset']})"
    if "uncounted" in size:
        yield f"  not counted: {size['uncounted']}"
        return
    for network, count in size["parameters"].items():
        yield f"  {network:<24} {count:>13,} parameters"
    if len(size["parameters"]) > 1:
        yield f"  {'in all':<24} {sum(size['parameters'].values()):>13,} parameters"
    gmac = f"{size['staining_gmac']:,.1f} GMAC"
    yield f"  {'staining':<24} {gmac:>13} a tile of {size['side_px']} px"


def _published(numbers: list[Number]) -> Iterator[str]:
    from hepipe.models.published import PRINTED

    yield ""
    if not numbers:
        yield "published: the four papers print no number of it"
        return
    yield "published"
    yield from textwrap.wrap(ELSEWHERE, COLUMNS, initial_indent="  ", subsequent_indent="  ")
    for (paper, table), of_table in groupby(numbers, key=lambda number: (number.paper, number.table)):
        yield f"  {paper}, table {table}"
        by_place: dict[tuple[str, str, str], list[Number]] = {}
        for number in of_table:
            by_place.setdefault((number.where, number.pairing, number.variant), []).append(number)
        for (where, pairing, variant), found in by_place.items():
            source = {number.quoted_from for number in found} - {""}
            about = [where, pairing, variant and f"ablation {variant}", *(f"quoted from {one}" for one in source)]
            yield from textwrap.wrap(
                ", ".join(part for part in about if part), COLUMNS, initial_indent="    ", subsequent_indent="    "
            )
            values = "; ".join(f"{PRINTED[n.metric].title} {_value(n)}" for n in found).replace(
                " ", "\N{NO-BREAK SPACE}"
            )
            lines = textwrap.wrap(
                values.replace(";\N{NO-BREAK SPACE}", "; "),
                COLUMNS,
                initial_indent=" " * 6,
                subsequent_indent=" " * 6,
                break_on_hyphens=False,
            )
            yield from (line.replace("\N{NO-BREAK SPACE}", " ") for line in lines)
            notes: dict[str, list[str]] = {}
            for number in found:
                if number.note and number.mark != "restored":
                    notes.setdefault(number.note, []).append(PRINTED[number.metric].title)
            for note, titles in notes.items():
                text = f"{', '.join(titles)}: {note}"
                yield from textwrap.wrap(text, COLUMNS, initial_indent=" " * 6, subsequent_indent=" " * 8)
    marks = {number.mark for number in numbers}
    if "restored" in marks:
        yield "  ° a decimal point, blank or row name was lost in the text copy and put back; no digit was"
    if "doubtful" in marks:
        yield "  ? could not be read with certainty"


def _value(number: Number) -> str:
    scale = {"1000": " (× 1000)", "unknown": " (factor unknown)"}.get(number.scale, "")
    return number.text + ("°" if number.mark == "restored" else "") + scale
