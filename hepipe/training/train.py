"""One run from its record and a data set's index to a finished model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hepipe.dataset.normalize import find_normalization
from hepipe.dataset.terms import Terms, as_told, merged_terms, told_terms
from hepipe.dataset.tiles import Sampler, SplitTiles
from hepipe.errors import StoreError
from hepipe.models.finished import (
    build_method,
    device_of,
    file_sha256,
    load_parts,
    read_finished_provenance,
    write_finished,
)
from hepipe.models.ranks import n_ranks, rank, wait_for_all
from hepipe.models.resolved import ResolvedRun
from hepipe.stores.provenance import Provenance, digest
from hepipe.training.history import History
from hepipe.training.loop import train_method
from hepipe.training.resume import ResumeFolder
from hepipe.training.watch import Watch, find_choice


def train_run(
    run: ResolvedRun,
    index: Path,
    *,
    fingerprint: str,
    part_folders: Mapping[str, Path],
    model: Path,
    history: Path,
    terms: Sequence[Terms] = (),
) -> None:
    """Train and store the finished model and its history; side files lie in the model's folder.

    Args:
        run: The complete record.
        index: Of the data set.
        fingerprint: Of the data set; resume files of another one are not continued.
        part_folders: Part name to the folder of the run that fills it.
        model: Where the finished model goes.
        history: Where the table of loss terms goes.
        terms: Of the data set; with those of the runs that it builds on they stay with the weights.

    Raises:
        StoreError: No training tile, or no validation tile for a metric to choose by.
        ConfigError: A device, part or metric that is not there.
    """
    spec = run.training
    device = device_of(run)
    choice = find_choice(spec.select, crop_px=spec.crop_px, where=f"runs.{run.name}.training")
    parts = load_parts(run, part_folders, training=True)
    tiles = SplitTiles(index, "train", mpp=spec.mpp, cache_mb=spec.cache_mb)
    normalization = find_normalization(spec.normalize, tiles.cases, tiles.case_pixels)
    if normalization is not None:
        tiles = SplitTiles(index, "train", mpp=spec.mpp, cache_mb=spec.cache_mb, normalization=normalization)
    sampler = Sampler(
        tiles,
        batch_size=spec.batch_size,
        crop_px=spec.crop_px,
        flips=spec.flips,
        seed=run.seed,
        needs=run.needs,
        unpaired=run.pairing == "unpaired",
        rank=rank(),
        n_ranks=n_ranks(),
    )
    held_out = SplitTiles(index, "val", mpp=spec.mpp, cache_mb=spec.cache_mb, normalization=normalization)
    if not held_out.rows and choice is not None:
        raise StoreError(
            f"split val holds no tile, so {spec.select.metric} cannot choose the checkpoint of run {run.name}; "
            "set training.select.metric to last or give val a share"
        )
    if not held_out.rows and rank() == 0:
        sys.stderr.write(f"{run.name}: split val holds no tile; sample pictures show training tiles\n")
    watch = Watch(
        held_out if held_out.rows else tiles,
        crop_px=spec.crop_px,
        max_tiles=spec.select.max_tiles,
        batch_size=spec.batch_size,
        device=device,
    )
    inherited = inherited_terms(terms, part_folders.values())
    inputs = {"dataset": fingerprint, "config": run.digest}
    inputs |= {f"part:{name}": part.sha256 for name, part in parts.items()}
    log = History(run.name, events=model.parent / "tensorboard" if spec.tensorboard and rank() == 0 else None)
    resume = ResumeFolder(model.parent / "resume", key=digest(inputs), rank=rank(), n_ranks=n_ranks())
    state = train_method(
        build_method(run, parts),
        sampler,
        spec=spec,
        seed=run.seed,
        device=device,
        watch=watch,
        choice=choice,
        resume=resume,
        history=log,
        samples=model.parent / "samples",
    )
    if rank() == 0:
        provenance = Provenance(
            artefact="model",
            subject=run.name,
            spec=run.model_dump(mode="json", exclude={"provenance"}),
            inputs=inputs,
            # With the weights, so that wherever they go the H&E can be shown to them in the same colours.
            told={
                **({} if normalization is None else {"normalization": normalization.model_dump(mode="json")}),
                **as_told(inherited),
            },
        )
        write_finished(model, state, provenance)
        made = {**inputs, "model": file_sha256(model)}
        log.write(history, provenance.model_copy(update={"artefact": "history", "inputs": made}))
        resume.clear()
    wait_for_all()


def inherited_terms(terms: Sequence[Terms], runs: Iterable[Path]) -> tuple[Terms, ...]:
    """The terms of a run's data set with those that the runs it builds on carry in their finished models."""
    return merged_terms(
        terms, *(told_terms(read_finished_provenance(folder / "model.safetensors").told) for folder in runs)
    )
