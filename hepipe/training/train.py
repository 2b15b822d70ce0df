"""One run from its record and a data set's index to a finished model."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from hepipe.dataset.normalize import find_normalization
from hepipe.dataset.terms import Terms, as_told, merged_terms, told_terms
from hepipe.dataset.tiles import Sampler, SplitTiles
from hepipe.errors import ConfigError, StoreError
from hepipe.models.catalog import find_entry
from hepipe.models.finished import (
    build_method,
    device_of,
    file_sha256,
    load_parts,
    read_finished_provenance,
    write_finished,
)
from hepipe.models.method import Fits, Method
from hepipe.models.ranks import n_ranks, rank, wait_for_all
from hepipe.models.rates import expected, known_rates, training_workload
from hepipe.models.resolved import ResolvedRun
from hepipe.models.spending import machine_name, spending
from hepipe.models.start import Start, put_start, read_start
from hepipe.specs.start import WHOLE
from hepipe.stores.costs import COST, Cost, Expected
from hepipe.stores.provenance import Provenance, code_version, digest
from hepipe.training.batch_norm import has_batch_norm
from hepipe.training.claim import claimed
from hepipe.training.history import History
from hepipe.training.loop import train_method
from hepipe.training.memory import proposing_what_helps
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
    init_files: Mapping[str, str] = MappingProxyType({}),
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
        init_files: What it starts from, as `start_files` gives it; the record says of what kind and hash.

    Raises:
        StoreError: The tiles lack what the model needs, there is no training tile, or no validation tile for a metric
            to choose by; or another process trains this run.
        ConfigError: A device, part or metric that is not there; a norm over a single value.
        HepipeError: A loss term or gradient that is not finite, or too little memory, with what would help.
    """
    with claimed(model.parent, run=run.name) if rank() == 0 else nullcontext():
        _train_claimed(
            run,
            index,
            fingerprint=fingerprint,
            part_folders=part_folders,
            model=model,
            history=history,
            terms=terms,
            init_files=init_files,
        )


def _train_claimed(
    run: ResolvedRun,
    index: Path,
    *,
    fingerprint: str,
    part_folders: Mapping[str, Path],
    model: Path,
    history: Path,
    terms: Sequence[Terms],
    init_files: Mapping[str, str],
) -> None:
    spec = run.training
    device = device_of(run)
    choice = find_choice(spec.select, crop_px=spec.crop_px, where=f"runs.{run.name}.training", device=device)
    if missing := sorted(run.init_from.keys() - init_files.keys()):
        named = ", ".join("a model" if network == WHOLE else f"the {network}" for network in missing)
        raise ConfigError(f"run {run.name}: starts from {named} that --init-from does not name; give it as for resolve")
    parts = load_parts(run, part_folders, training=True)
    start = read_start(run, init_files) if init_files else Start()
    tiles = SplitTiles(index, "train", mpp=spec.mpp, cache_mb=spec.cache_mb)
    entry = find_entry(run.model, where=f"runs.{run.name}.model")
    tiles.check_carries(run.needs, model=f"{run.model} {run.preset}", instead=entry.presets_without(run.needs))
    normalization = find_normalization(spec.normalize, tiles.cases, tiles.case_pixels)
    if normalization is not None:
        tiles = SplitTiles(index, "train", mpp=spec.mpp, cache_mb=spec.cache_mb, normalization=normalization)
    asked = run.digest
    run = run.budgeted(len(tiles))
    spec = run.training
    sampler = Sampler(
        tiles,
        batch_size=spec.batch_size,
        crop_px=spec.crop_px,
        flips=spec.flips,
        seed=run.seed,
        needs=run.needs,
        unpaired=run.pairing == "unpaired",
        replacement=spec.sample_with_replacement,
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
    method = build_method(run, parts)
    untrained = put_start(method, start) if init_files else []
    notes = [*start.lines, *_untrained(run, untrained)]
    if rank() == 0:
        sys.stderr.writelines(f"{run.name}: {note}\n" for note in notes)
    inherited = merged_terms(inherited_terms(terms, part_folders.values()), start.terms)
    inputs = {"dataset": fingerprint, "config": asked}
    inputs |= {} if choice is None else {f"weights:{role}": sha256 for role, sha256 in choice.weights.items()}
    inputs |= {f"part:{name}": part.sha256 for name, part in parts.items()} | start.inputs
    log = History(run.name, events=model.parent / "tensorboard" if spec.tensorboard and rank() == 0 else None)
    resume = ResumeFolder(model.parent / "resume", key=digest(inputs), rank=rank(), n_ranks=n_ranks())
    account = model.parent / COST if rank() == 0 else None
    helped = proposing_what_helps(run, entry, batch_norm=has_batch_norm(method), n_ranks=n_ranks())
    with helped, spending(account, _cost(run, method, len(tiles), resume.key, model, device), device=device) as spent:
        state = train_method(
            method,
            sampler,
            spec=spec,
            seed=run.seed,
            device=device,
            watch=watch,
            choice=choice,
            resume=resume,
            history=log,
            samples=model.parent / "samples",
            count=spent.add,
        )
    if isinstance(method, Fits):
        spent.add(len(tiles))
    if rank() == 0:
        provenance = Provenance(
            artefact="model",
            subject=run.name,
            spec=run.model_dump(mode="json", exclude={"provenance"}),
            inputs=inputs,
            # With the weights, so that wherever they go the H&E can be shown to them in the same colours.
            told={
                "code": code_version(),
                "budget": told_budget(run, len(tiles)),
                "notes": notes,
                **({"init_from": start.told} if start.told else {}),
                "trained_on": {"mpp": tiles.mpp, "markers": sorted({row.marker for row in tiles.rows})},
                **({} if normalization is None else {"normalization": normalization.model_dump(mode="json")}),
                **as_told(inherited),
            },
        )
        write_finished(model, state, provenance)
        made = {**inputs, "model": file_sha256(model)}
        log.write(history, provenance.model_copy(update={"artefact": "history", "inputs": made}))
        resume.clear()
    spent.close(model)
    wait_for_all()


def _cost(run: ResolvedRun, method: Method, n_tiles: int, key: str, model: Path, device: torch.device) -> Cost:
    """What is known of a training's cost before it begins: its work, and what runs beside it took for the like."""
    work = training_workload(run, machine=machine_name(device)).model_copy(update={"processes": n_ranks()})
    n_units = run.training.n_steps
    if isinstance(method, Fits):  # sees every tile once
        work, n_units = work.model_copy(update={"unit": "tile", "tiles_a_unit": 1}), n_tiles
    try:
        before = expected(work, n_units, known_rates(model.absolute().parent.parent))
    except StoreError as error:  # an estimate that cannot be made stops no training
        before = Expected(ground=str(error))
    return Cost(run=run.name, key=key, workload=work, n_units=n_units, expected=before)


def told_budget(run: ResolvedRun, n_tiles: int) -> dict[str, Any]:
    """How long a run trained, by which rule, and what its authors had done."""
    spec = run.training
    steps_per_epoch = -(-n_tiles // spec.batch_size)
    return {
        "rule": spec.budget.rule,
        "n_steps": spec.n_steps,
        "epochs": round(spec.n_steps / steps_per_epoch, 3),
        "batch_size": spec.batch_size,
        "n_tiles": n_tiles,
        "capped": spec.n_steps == spec.budget.most_steps,
        "published": asdict(run.published),
    }


def _untrained(run: ResolvedRun, networks: Sequence[str]) -> Iterator[str]:
    """What of a run starts from random numbers though it might not."""
    if networks:
        yield f"untrained at the start: {', '.join(networks)}"
    for name, part in run.parts.items():
        # What it starts from has trained that part too.
        if part.absent and part.kind == "weights" and not run.init_from:
            yield f"{name} is trained from scratch: no weights of role {part.source}; see `hepipe weights status`"


def inherited_terms(terms: Sequence[Terms], runs: Iterable[Path]) -> tuple[Terms, ...]:
    """The terms of a run's data set with those that the runs it builds on carry in their finished models."""
    return merged_terms(
        terms, *(told_terms(read_finished_provenance(folder / "model.safetensors").told) for folder in runs)
    )
