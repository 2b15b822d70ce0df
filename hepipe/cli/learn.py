"""Commands about models: complete a run's configuration, train it, predict tiles."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from hepipe.cli.options import OutPath, SpecJson

MaybePath = Annotated[Path | None, typer.Option(exists=True, help="Of a run of the config.")]
MaybeOut = Annotated[Path | None, typer.Option(help="Of a run of the config; written whole or not at all.")]
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
    name: Annotated[str | None, typer.Argument(metavar="MODEL", help="By hand: a model of `hepipe models`.")] = None,
    data: Annotated[Path | None, typer.Option(help="By hand: a data set's folder, or its index.")] = None,
    preset: Annotated[str, typer.Option(help="By hand: of the model.")] = "paper",
    seed: Annotated[int, typer.Option(min=0, help="By hand.")] = 0,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="By hand: KEY=VALUE of the model's options or of `training`.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="By hand: cpu or cuda; none: cuda where there is one.")] = None,
    out: Annotated[Path | None, typer.Option(help="By hand: folder of the run; runs/MODEL-PRESET-sSEED.")] = None,
    init_from: Annotated[
        str, typer.Option(help="SOURCE, or NETWORK=SOURCE,…: a run's folder, a finished model, an authors' checkpoint.")
    ] = "",
    part: PartOptions = None,
    config: MaybePath = None,
    index: MaybePath = None,
    card: MaybePath = None,
    model: MaybeOut = None,
    history: MaybeOut = None,
) -> None:
    """Train a model: `hepipe train MODEL --data STORE` by hand, or a run of the config by its record.

    Goes on from its last resume file. Under torchrun every process takes its share of a batch.
    """
    if name is not None or data is not None:
        from hepipe.cli import by_hand

        _refuse_both(config=config, index=index, card=card, model=model, history=history)
        by_hand.train(
            name,
            data,
            preset=preset,
            seed=seed,
            settings=set_ or [],
            init_from=init_from,
            device=device,
            part_folders=_folders(part),
            out=out,
        )
        return
    given = _all_given("MODEL and --data", config=config, index=index, card=card, model=model, history=history)
    _train_run(given, init_from=init_from, part_folders=_folders(part))


def _train_run(given: dict[str, Path], *, init_from: str, part_folders: dict[str, Path]) -> None:
    from hepipe.dataset.card import read_card
    from hepipe.dataset.folds import check_fold
    from hepipe.models.resolved import read_resolved
    from hepipe.specs.start import from_words
    from hepipe.training.train import train_run
    from hepipe.weights.start import start_files

    run, made = read_resolved(given["config"]), read_card(given["card"])
    check_fold(given["index"], run.fold)
    with torch_ready(run.training.threads, run.training.device):
        train_run(
            run,
            given["index"],
            fingerprint=made.fingerprint,
            part_folders=part_folders,
            model=given["model"],
            history=given["history"],
            terms=made.terms,
            init_files=start_files(from_words(init_from)) if init_from else {},
        )


def predict(
    folder: Annotated[Path | None, typer.Argument(metavar="RUN", help="By hand: folder of a trained run.")] = None,
    he: Annotated[Path | None, typer.Option(help="By hand: a folder of H&E pictures, or a data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="By hand: folder of the virtual pictures.")] = None,
    mpp: Annotated[float | None, typer.Option(min=0, help="By hand: µm per px of the pictures.")] = None,
    tile_px: Annotated[int, typer.Option(min=0, help="By hand: side of the crops that are stained; 0: chosen.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="By hand: pictures of one size stained together.")] = 1,
    device: Annotated[str | None, typer.Option(help="By hand: cpu or cuda; none: cuda where there is one.")] = None,
    split: Annotated[str | None, typer.Option(help="train, val or test; by hand none is all.")] = None,
    part: PartOptions = None,
    config: MaybePath = None,
    model: MaybePath = None,
    index: MaybePath = None,
    virtual: MaybeOut = None,
    spec: SpecJson = "{}",
) -> None:
    """Stain H&E virtually: `hepipe predict RUN --he DIR --out DIR` by hand, or a split of a data set as a store."""
    if folder is not None or he is not None:
        from hepipe.cli import by_hand

        _refuse_both(config=config, model=model, index=index, virtual=virtual)
        by_hand.predict(
            folder,
            he,
            out,
            mpp=mpp,
            tile_px=tile_px,
            batch=batch,
            device=device,
            split=split,
            part_folders=_folders(part),
        )
        return
    given = _all_given("RUN, --he and --out", config=config, model=model, index=index, virtual=virtual)
    config_file, model_file, index_file, store = (given[name] for name in ("config", "model", "index", "virtual"))
    _predict_split(config_file, model_file, index_file, split or "", store, spec, part_folders=_folders(part))


def _predict_split(
    config: Path, model: Path, index: Path, split: str, virtual: Path, spec: str, *, part_folders: dict[str, Path]
) -> None:
    from typing import cast, get_args

    from hepipe.dataset.folds import check_fold
    from hepipe.dataset.normalize import told_normalization
    from hepipe.errors import ConfigError
    from hepipe.inference.tiles import crop_of, predict_split, prediction_cost, tiles_as_trained
    from hepipe.models.finished import (
        build_method,
        device_of,
        file_sha256,
        load_parts,
        load_state,
        read_finished_provenance,
        read_state,
    )
    from hepipe.models.resolved import entry_of, read_resolved
    from hepipe.models.spending import spending
    from hepipe.specs.dataset import Split
    from hepipe.specs.training import EvaluationSpec
    from hepipe.stores.costs import cost_of_tiles
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
    entry = entry_of(run, where=f"runs.{run.name}.model")
    crop_px = crop_of(entry, run.preset, side_px=tiles.side_px, wanted_px=evaluation.tile_px) if tiles.rows else 0
    if not tiles.rows:
        typer.echo(f"split {split} holds no tile; the store of virtual tiles is empty", err=True)
    device = device_of(run)
    with torch_ready(run.training.threads, run.training.device):
        method = build_method(run, load_parts(run, part_folders, training=False))
        load_state(method, read_state(model), what=model.name)
        provenance = Provenance(
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
            told={name: told[name] for name in ("normalization", "terms", "budget", "trained_on") if name in told},
        )
        cost = prediction_cost(run, tiles, provenance, runs=model.absolute().parent.parent, device=device)
        with spending(cost_of_tiles(virtual), cost, device=device) as spent:
            predict_split(
                method,
                tiles,
                virtual,
                provenance,
                crop_px=crop_px,
                stitch=evaluation.stitch,
                batch_size=evaluation.batch_size,
                seed=run.seed,
                device=device,
                count=spent.add,
            )
        spent.close(virtual)


def _refuse_both(**options: Path | None) -> None:
    from hepipe.errors import ConfigError

    if given := [f"--{name}" for name, value in options.items() if value is not None]:
        raise ConfigError(f"{', '.join(given)}: for runs of the config; by hand leave them out")


def _all_given(instead: str, **options: Path | None) -> dict[str, Path]:
    from hepipe.errors import ConfigError

    given = {name: value for name, value in options.items() if value is not None}
    if missing := sorted(options.keys() - given.keys()):
        raise ConfigError(
            f"give {instead}, or for a run of the config all of {', '.join(f'--{name}' for name in options)} "
            f"(missing: {', '.join(missing)})"
        )
    return given


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
def torch_ready(threads: int, device: str) -> Iterator[None]:
    """Fixed numbers of threads, and the process group of torchrun when there is one."""
    import cv2
    import torch

    from hepipe.models.ranks import torchrun_group

    cv2.setNumThreads(1)
    torch.set_num_threads(threads)
    with torchrun_group(device):
        yield
