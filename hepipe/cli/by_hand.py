"""What `train` and `predict` do when a person names a model or a run instead of a config's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import typer

from hepipe.errors import ConfigError


def train(
    model: str | None,
    data: Path | None,
    *,
    preset: str,
    seed: int,
    settings: Sequence[str],
    init_from: str,
    device: str | None,
    part_folders: Mapping[str, Path],
    out: Path | None,
) -> None:
    """Train a model on a data set, or say that it is done."""
    from hepipe.cli.learn import torch_ready
    from hepipe.models.catalog import catalog
    from hepipe.training.by_hand import carry_out, is_finished, plan

    if model is None or data is None:
        missing = "MODEL" if model is None else "--data, the folder of a data set such as results/cohort"
        raise ConfigError(f"train: {missing} is missing; models are {', '.join(catalog())}")
    planned = plan(
        model,
        data,
        preset=preset,
        seed=seed,
        settings=settings,
        init_from=init_from,
        device=device,
        part_folders=part_folders,
        out=out,
    )
    if is_finished(planned):
        _say([f"{planned.out}: this very run is there, trained to its end; nothing to do"])
        return
    _say(planned.lines)
    with torch_ready(planned.run.training.threads, planned.run.training.device):
        carry_out(planned)
    _say([f"{planned.out}: done; stain with `hepipe predict {planned.out} --he FOLDER --mpp MPP --out FOLDER`"])


def predict(
    run: Path | None,
    he: Path | None,
    out: Path | None,
    *,
    mpp: float | None,
    tile_px: int,
    batch: int,
    device: str | None,
    split: str | None,
    part_folders: Mapping[str, Path],
) -> None:
    """Stain a folder of pictures, or the H&E of a data set; exit 1 when some could not be."""
    from hepipe.cli.learn import torch_ready
    from hepipe.inference.by_hand import open_run, stain_all
    from hepipe.inference.pictures import find_sources

    if run is None or he is None or out is None:
        given = {"RUN": run, "--he": he, "--out": out}
        missing = ", ".join(name for name, value in given.items() if value is None)
        raise ConfigError(f"predict: {missing} is missing; hepipe predict RUN --he DIR --out DIR")
    opened = open_run(run, device=device)
    sources = find_sources(he, opened.run, opened.told, normalization=opened.normalization, split=split, mpp=mpp)
    _say([*opened.lines, *sources.lines])
    with torch_ready(opened.run.training.threads, opened.device.type):
        failed = stain_all(opened, sources, out, tile_px=tile_px, batch=batch, part_folders=part_folders)
    _say([f"not stained: {name}: {reason}" for name, reason in failed])
    _say([f"{out}: {len(sources) - len(failed)} of {len(sources)} pictures stained"])
    if failed:
        raise typer.Exit(1)


def _say(lines: Sequence[str]) -> None:
    """Tell a person; one process of several does."""
    if int(os.environ.get("RANK", "0")) == 0:
        for line in lines:
            typer.echo(line, err=True)
