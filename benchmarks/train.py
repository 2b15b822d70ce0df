"""Steps a second, peak memory and loss of every model that trains: eager float32 against the best settings, in turn.

    python benchmarks/train.py [--preset small] [--size PX] [--batch N] [--steps N] [MODEL ...]
        [--device cuda] [--best KEY=VALUE ...] [--rounds N] [--record ROWS.json] [--index INDEX.parquet]
        [--rates rates.json]
    python benchmarks/train.py --device cuda --preset paper --steps 500          where there is a GPU

Both settings of a model start from the same weights and see the same batches through hepipe's loader; every run is a
process of its own, and rounds alternate which goes first. Steps before the timed ones (`--warmup`) compile and fill
caches. `idle` is the share of the time in which the device has nothing to do between two steps: on a GPU by CUDA
events, on a CPU the time blocked until the batch comes. A model that fails is a row that says why.

`--loader` measures the loader alone instead: tiles a second by two threads, and which consumption that keeps busy.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bars.child import run
from bars.table import Table
from trainbars.drawn import draw_set
from trainbars.rates import add_rates, rate

from hepipe.models.catalog import catalog
from hepipe.progress import watched
from hepipe.specs.base import Spec

PAPER_PX = {"pix2pix": 256, "pyramid_pix2pix": 1024, "bcistainer": 1024, "cssp2p": 1024}
"""Side of the training crop in the paper; 512 px for all others."""
EAGER = {"precision": "fp32", "compile": "none", "channels_last": False}
BEST = {
    "cuda": {"precision": "bf16", "compile": "default", "channels_last": True},
    "cpu": {"precision": "fp32", "compile": "default", "channels_last": False},
}
GAIN, BUSY = 1.8, 0.9
SEES_NOTHING = ("identity", "mean_colour")
"""Models that do not train."""


class Settings(Spec):
    """What was measured."""

    preset: str
    device: str
    size: int | None
    batch: int | None
    steps: int
    warmup: int
    rounds: int
    best: dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One run of one model under one setting."""

    model: str
    setting: str
    round: int


def jobs_of(models: list[str], rounds: int, *, eager_only: bool) -> list[Job]:
    """Both settings of a model next to one another, the order turned in every round."""
    orders = [("eager",), ("eager",)] if eager_only else [("eager", "best"), ("best", "eager")]
    return [Job(model, setting, n) for model in models for n in range(rounds) for setting in orders[n % 2]]


def measure(options: argparse.Namespace, table: Table, work: Path) -> None:
    """A row a model, as soon as its runs are through."""
    models = options.models or [name for name in sorted(catalog()) if name not in SEES_NOTHING]
    if unknown := sorted(set(models) - set(catalog())):
        raise SystemExit(f"no model {', '.join(unknown)}; there are {', '.join(catalog())}")
    jobs = jobs_of(models, options.rounds, eager_only=options.eager_only)
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job in watched(jobs, "training", total=len(jobs), unit="run"):
        found.setdefault((job.model, job.setting), []).append(one(job, options, table.spec, work))
        if job == jobs[-1] or jobs[jobs.index(job) + 1].model != job.model:
            add_row(table, job.model, found[job.model, "eager"], found.get((job.model, "best"), []), options)
    if options.rates is not None:
        keep_rates(found, options, table.spec)


def keep_rates(found: dict[tuple[str, str], list[dict[str, Any]]], options: argparse.Namespace, spec: Spec) -> None:
    """Write what was measured for `hepipe cost`."""
    assert isinstance(spec, Settings)
    rates = []
    for (model, setting), runs in found.items():
        side, batch = size_of(model, options)
        known = {"preset": options.preset, "threads": options.threads, "device": options.device}
        settings = EAGER if setting == "eager" else spec.best
        rates.append(rate(model, runs, side=side, batch=batch, settings=settings, **known))
    add_rates(options.rates, [one for one in rates if one is not None])


def size_of(model: str, options: argparse.Namespace) -> tuple[int, int]:
    """Side and batch of a model's paper, or as asked for."""
    published = catalog()[model].published_of(options.preset).batch_size
    side = PAPER_PX.get(model, 512) if options.preset != "small" else 128
    return options.size or side, options.batch or (4 if options.preset == "small" else published or 1)


def one(job: Job, options: argparse.Namespace, spec: Spec, work: Path) -> dict[str, Any]:
    """What a run printed, with the peak of its process; `problem` when it failed."""
    side, batch = size_of(job.model, options)
    index = options.index
    if index is None:
        index = work / f"drawn-{side}" / "index.parquet"
        if not index.exists():
            draw_set(index.parent, tiles=64, side=side)
    assert isinstance(spec, Settings)
    wanted = {
        "model": job.model,
        "preset": options.preset,
        "side": side,
        "batch": batch,
        "steps": options.steps,
        "warmup": options.warmup,
        "device": options.device,
        "threads": options.threads,
        "workers": options.workers,
        "cache_mb": options.cache_mb,
        "index": str(index),
        "settings": EAGER if job.setting == "eager" else spec.best,
    }
    command = [sys.executable, str(Path(__file__).parent / "trainbars" / "one.py"), json.dumps(wanted)]
    ran = run(command, more={"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)})
    try:
        said: dict[str, Any] = json.loads(ran.last) if ran.status == 0 else {}
    except ValueError:
        said = {}
    return {**said, "peak_mb": ran.peak_mb} if said else {"problem": f"exit {ran.status}: {ran.last[:160]}"}


def add_row(
    table: Table, model: str, eager: list[dict[str, Any]], best: list[dict[str, Any]], options: argparse.Namespace
) -> None:
    """The medians of both settings side by side."""
    side, batch = size_of(model, options)
    what = f"{model} {options.preset}, {batch} x {side} px"
    if problems := [
        f"{name}: {r['problem']}" for name, rs in (("eager", eager), ("best", best)) for r in rs if "problem" in r
    ]:
        table.add(what, "; ".join(dict.fromkeys(problems)), "both run", False)
        return

    def of(runs: list[dict[str, Any]], key: str) -> float:
        return median(float(found[key]) for found in runs)

    memory = "device_mb" if options.device == "cuda" else "peak_mb"
    steps = options.warmup + options.steps
    if not best:
        table.add(
            what,
            f"{of(eager, 'steps_s'):.2f} steps/s, CPU {of(eager, 'cpu_s'):.3f} s a step, "
            f"peak {of(eager, memory):.0f} MB, "
            f"loss after {steps} steps {of(eager, 'loss'):.4g}, idle {of(eager, 'idle'):.1%}",
        )
        return
    gain, less = of(best, "steps_s") / of(eager, "steps_s"), of(eager, "cpu_s") / of(best, "cpu_s")
    figures = (
        f"{of(eager, 'steps_s'):.2f} > {of(best, 'steps_s'):.2f} steps/s ({gain:.2f} ×), "
        f"CPU {of(eager, 'cpu_s'):.3f} > {of(best, 'cpu_s'):.3f} s a step ({less:.2f} ×), "
        f"peak {of(eager, memory):.0f} > {of(best, memory):.0f} MB, "
        f"loss after {steps} steps {of(eager, 'loss'):.4g} > {of(best, 'loss'):.4g}, "
        f"idle {of(eager, 'idle'):.1%} > {of(best, 'idle'):.1%}, warm-up {of(best, 'warmup_s'):.0f} s"
    )
    on_gpu = options.device == "cuda"
    reached = gain >= GAIN and of(best, "idle") <= 1 - BUSY if on_gpu else None
    table.add(what, figures, f"≥ {GAIN:g} ×, idle ≤ {1 - BUSY:.0%}" if on_gpu else "", reached)


def measure_loader(options: argparse.Namespace, table: Table, work: Path) -> None:
    """Tiles a second of the loader alone, of whole tiles and of crops of larger ones."""
    import torch

    from hepipe.dataset.loading import TileBatches
    from hepipe.dataset.tiles import Sampler, SplitTiles

    torch.set_num_threads(1)
    crop = options.size or 512
    sides = [None] if options.index else [crop, 2 * crop]
    for side in sides:
        index = options.index or draw_set(work / f"loader-{side}", tiles=48, side=side)
        tiles = SplitTiles(index, "train", cache_mb=0)
        sampler = Sampler(tiles, batch_size=options.batch or 8, crop_px=crop, flips=True, seed=0)
        stop = max(options.steps // sampler.batch_size, 4)
        for threads in (1, 2, 4):
            for _ in TileBatches(sampler, stop=2, threads=threads):
                pass
            wall, cpu = time.monotonic(), time.process_time()
            for _ in TileBatches(sampler, stop=stop, threads=threads):
                pass
            pairs = stop * sampler.batch_size
            rate, spent = pairs / (time.monotonic() - wall), (time.process_time() - cpu) / pairs
            table.add(
                f"pairs of {crop} px from tiles of {tiles.side_px} px, {threads} threads, no cache",
                f"{rate:.0f} pairs/s by the clock, {1e3 * spent:.1f} CPU ms a pair ({1 / spent:.0f} a CPU s); keeps a "
                f"device {BUSY:.0%} busy that takes up to {rate / BUSY:.0f} pairs/s",
            )


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help="all that train when none is named")
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", type=int, help="side of the crop, px; of the paper, or 128 for small")
    parser.add_argument("--batch", type=int, help="tiles a step; of the paper, or 4 for small")
    parser.add_argument("--steps", type=int, default=100, help="timed steps; pairs of --loader")
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2, help="of torch on a CPU")
    parser.add_argument("--workers", type=int, default=2, help="threads of the loader")
    parser.add_argument("--cache-mb", type=int, default=0, help="decoded tiles kept, MB; 0 decodes every time")
    parser.add_argument("--best", nargs="*", default=[], metavar="KEY=VALUE", help="in place of the best settings")
    parser.add_argument("--index", type=Path, help="of a data set, in place of drawn tiles")
    parser.add_argument("--record", type=Path)
    parser.add_argument(
        "--rates", type=Path, help="file of rates for `hepipe cost`; those of the same work are replaced"
    )
    parser.add_argument("--eager-only", action="store_true", help="rates of eager float32 alone")
    parser.add_argument("--loader", action="store_true")
    options = parser.parse_args()
    best = dict(BEST[options.device])
    for given in options.best:
        key, _, value = given.partition("=")
        best[key] = value == "true" if value in ("true", "false") else value
    names = set(Settings.model_fields) - {"best"}
    spec = Settings(best=best, **{name: value for name, value in vars(options).items() if name in names})
    about = f"eager fp32 > {', '.join(f'{key} {value}' for key, value in best.items())}, on {options.device}"
    table = Table("training", spec, about="the loader alone" if options.loader else about, record=options.record)
    with tempfile.TemporaryDirectory() as folder:
        (measure_loader if options.loader else measure)(options, table, Path(folder))


if __name__ == "__main__":
    main()
