"""Commands about models: complete a run's configuration, train it, predict tiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hepipe.cli.options import InPath, OutPath, SpecJson

PartOptions = Annotated[list[str] | None, typer.Option("--part", help="NAME=FOLDER of the run that fills a part.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (resolve, train, predict):
        app.command()(command)


def resolve(run: Annotated[str, typer.Option(help="Name of the run.")], spec: SpecJson, config: OutPath) -> None:
    """Complete and check a run's configuration."""
    from hepipe.models.resolved import resolve_run, write_resolved
    from hepipe.specs.training import RunSpec
    from hepipe.training.watch import find_choice

    resolved = resolve_run(run, RunSpec.model_validate_json(spec))
    for name, part in resolved.parts.items():
        if part.absent:
            typer.echo(f"run {run}: part {name} ({part.source or part.kind}) is absent; it starts untrained", err=True)
    training = resolved.training
    find_choice(training.select, crop_px=training.crop_px, where=f"runs.{run}.training")
    write_resolved(config, resolved)


def train(
    config: InPath,
    index: InPath,
    card: InPath,
    model: OutPath,
    history: OutPath,
    part: PartOptions = None,
) -> None:
    """Train one run; goes on from its last resume file. Under torchrun every process takes its share of a batch."""
    from hepipe.dataset.card import read_card
    from hepipe.dataset.folds import check_fold
    from hepipe.models.resolved import read_resolved
    from hepipe.training.train import train_run

    run, made = read_resolved(config), read_card(card)
    check_fold(index, run.fold)
    with _torch(run.training.threads, run.training.device):
        train_run(
            run,
            index,
            fingerprint=made.fingerprint,
            part_folders=_folders(part),
            model=model,
            history=history,
            terms=made.terms,
        )


def predict(
    config: InPath,
    model: InPath,
    index: InPath,
    split: Annotated[str, typer.Option(help="train, val or test.")],
    virtual: OutPath,
    spec: SpecJson = "{}",
    part: PartOptions = None,
) -> None:
    """Stain the H&E tiles of one split virtually."""
    from typing import cast, get_args

    from hepipe.dataset.folds import check_fold
    from hepipe.dataset.normalize import told_normalization
    from hepipe.errors import ConfigError
    from hepipe.inference.tiles import crop_of, predict_split, tiles_as_trained
    from hepipe.models.catalog import find_entry
    from hepipe.models.finished import (
        build_method,
        device_of,
        file_sha256,
        load_parts,
        load_state,
        read_finished_provenance,
        read_state,
    )
    from hepipe.models.resolved import read_resolved
    from hepipe.specs.dataset import Split
    from hepipe.specs.training import EvaluationSpec
    from hepipe.stores.provenance import Provenance

    if split not in get_args(Split):
        raise ConfigError(f"--split {split}: {', '.join(get_args(Split))} expected")
    run = read_resolved(config)
    check_fold(index, run.fold, dataset=run.dataset)
    evaluation = EvaluationSpec.model_validate_json(spec)
    told = read_finished_provenance(model).told
    normalization = told_normalization(told, run.training.normalize, what=model.name)
    tiles = tiles_as_trained(
        index, cast(Split, split), run, told, mpp_slack=evaluation.mpp_slack, normalization=normalization
    )
    entry = find_entry(run.model, where=f"runs.{run.name}.model")
    crop_px = crop_of(entry, run.preset, side_px=tiles.side_px, wanted_px=evaluation.tile_px) if tiles.rows else 0
    if not tiles.rows:
        typer.echo(f"split {split} holds no tile; the store of virtual tiles is empty", err=True)
    device = device_of(run)
    with _torch(run.training.threads, run.training.device):
        method = build_method(run, load_parts(run, _folders(part), training=False))
        load_state(method, read_state(model), what=model.name)
        predict_split(
            method,
            tiles,
            virtual,
            Provenance(
                artefact="virtual",
                subject=run.name,
                spec={
                    "crop_px": crop_px,
                    "batch_size": evaluation.batch_size,
                    "mpp": tiles.mpp,
                    "split": split,
                    "stitch": evaluation.stitch.model_dump(mode="json"),
                },
                inputs={"model": file_sha256(model), "config": run.digest},
                # As the model was told: its colours, its budget, and the terms of all that it was trained on.
                told={
                    name: told[name] for name in ("normalization", "terms", "budget", "trained_on") if name in told
                },
            ),
            crop_px=crop_px,
            stitch=evaluation.stitch,
            batch_size=evaluation.batch_size,
            seed=run.seed,
            device=device,
        )


def _folders(options: list[str] | None) -> dict[str, Path]:
    from hepipe.errors import ConfigError

    folders = {}
    for option in options or []:
        name, found, folder = option.partition("=")
        if not found or not folder:
            raise ConfigError(f"--part {option}: NAME=FOLDER expected")
        folders[name] = Path(folder)
    return folders


@contextlib.contextmanager
def _torch(threads: int, device: str) -> Iterator[None]:
    """Fixed numbers of threads, and the process group of torchrun when there is one."""
    import cv2
    import torch

    from hepipe.models.ranks import torchrun_group

    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    with torchrun_group(device):
        yield
