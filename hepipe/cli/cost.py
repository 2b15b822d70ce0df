"""The command that says what the runs of a config will cost, before they run."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepipe.report.words import disk_in_words, time_in_words

if TYPE_CHECKING:
    from hepipe.report.plan import PlannedRun

COLUMNS = 100


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(cost)


def cost(
    config: Annotated[
        Path, typer.Option("--config", "--configfile", exists=True, dir_okay=False, help="As the workflow takes it.")
    ] = Path("config.yaml"),
    results: Annotated[Path, typer.Option(help="Where indices and earlier runs are looked for.")] = Path("results"),
    rates: Annotated[
        Path | None, typer.Option(exists=True, help="What a benchmark measured; else rates.json if it is here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Estimate GPU-hours, CPU-hours and disk of a config's runs from rates measured here; guesses nothing."""
    from hepipe.config import load_config
    from hepipe.report.plan import plan, totals

    planned = plan(load_config(_yaml(config)), results, rates_file=rates)
    if as_json:
        runs = [{**asdict(run), "stages": [_stage_values(stage) for stage in run.stages]} for run in planned]
        typer.echo(json.dumps({"runs": runs, "totals": [asdict(total) for total in totals(planned)]}, indent=1))
        return
    typer.echo("\n".join(_lines(planned)).replace("\N{NO-BREAK SPACE}", " "))


def _yaml(path: Path) -> dict[str, Any]:
    from hepipe.errors import ConfigError
    from hepipe.specs.twice import refuse_twice

    try:
        import yaml
    except ImportError:
        raise ConfigError(
            "reading a config needs PyYAML, which comes with Snakemake: pip install hepipe[workflow]"
        ) from None
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: sections such as `datasets` and `runs` expected")
    refuse_twice(path)
    return found


def _lines(planned: list[PlannedRun]) -> Iterator[str]:
    from hepipe.report.plan import totals

    if not planned:
        yield "this config trains nothing: it has no `runs`"
        return
    yield f"{'run':<22}{'job':<24}{'of':>12}{'wall':>13}{'device-hours':>15}{'disk':>12}"
    yield "-" * COLUMNS
    for run in planned:
        yield from textwrap.wrap(
            f"{run.name} ({run.about}{', trained already' if run.is_trained else ''})", COLUMNS, subsequent_indent="  "
        )
        if run.problem:
            yield from textwrap.wrap(run.problem, COLUMNS, initial_indent="  ", subsequent_indent="  ")
        unit = "GPU h" if run.device == "cuda" else "CPU h"
        for stage in run.stages:
            hours = "unknown" if stage.device_hours is None else f"{_short(stage.device_hours)} {unit}"
            many = "?" if stage.n_units is None else f"{stage.n_units:,}"
            cells = (
                f"{many:>12}{time_in_words(stage.expected.wall_s):>13}{hours:>15}{disk_in_words(stage.disk_bytes):>12}"
            )
            yield f"  {stage.what:<44}{cells}"
            yield from textwrap.wrap(stage.expected.ground, COLUMNS, initial_indent=" " * 6, subsequent_indent=" " * 6)
        if run.resume_bytes is not None and not run.is_trained:
            yield f"      resume files while it trains: up to {disk_in_words(run.resume_bytes)}"
    yield "-" * COLUMNS
    for total in totals(planned):
        name = "GPU-hours" if total.device == "cuda" else "CPU-hours (cores asked for)"
        open_jobs = f", and {total.open} jobs of which nothing is known" if total.open else ""
        yield f"{name} in all: {_short(total.device_hours)}{open_jobs}"
    disk = [stage.disk_bytes for run in planned for stage in run.stages]
    unknown = f", and {disk.count(None)} jobs of which nothing is known" if None in disk else ""
    yield f"disk of models and virtual tiles: {disk_in_words(sum(size for size in disk if size is not None))}{unknown}"


def _stage_values(stage: Any) -> dict[str, Any]:
    return {**asdict(stage), "expected": stage.expected.model_dump(), "device_hours": stage.device_hours}


def _short(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f}"
    return f"{hours:.2g}" if hours >= 0.01 or not hours else "< 0.01"
