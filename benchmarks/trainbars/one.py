"""One model under one setting, in a process of its own: trains some steps on a data set and prints JSON.

    python benchmarks/trainbars/one.py '{"model": "cut", ...}'

The networks, turns and loader are those of a run; validation, pictures and resume files are left out.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hepipe.dataset.tiles import Sampler, SplitTiles, batches
from hepipe.models.catalog import catalog
from hepipe.models.method import Method, Progress
from hepipe.models.resolved import zoo_module
from hepipe.specs.training import TrainingSpec
from hepipe.training.loop import iterate, make_players, step_seed
from hepipe.training.speed import speed_up

LAST = 20
"""Steps at the end whose loss is averaged."""
SEED = 0


class Waits:
    """How long the device stands still between two steps: by CUDA events, or on a CPU the time until a batch comes."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        self.events: list[torch.cuda.Event] = []
        self.blocked_s = 0.0

    def mark(self) -> None:
        """The device is about to begin a step, or has just ended one."""
        if self.cuda:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.events.append(event)

    def share(self, wall_s: float) -> float:
        """Share of the time in which there was nothing to compute."""
        if not self.cuda:
            return self.blocked_s / wall_s
        torch.cuda.synchronize()
        began, ended = self.events[::2], self.events[1::2]
        whole = began[0].elapsed_time(ended[-1])
        busy = sum(a.elapsed_time(b) for a, b in zip(began, ended, strict=True))
        return 1 - busy / whole


def build(model: str, preset: str, side: int, options: dict[str, Any]) -> Method:
    """A fresh model; one that is built for a side is built for this one."""
    module = zoo_module(model)
    config = module.PRESETS[preset].model_copy(update=options)
    if "full_size" in type(config).model_fields:
        config = config.model_copy(update={"full_size": side})
    torch.manual_seed(SEED)
    method: Method = module.build(config, {})
    return method


def train(wanted: dict[str, Any]) -> dict[str, Any]:
    """What the steps took, and the loss at their end."""
    device = torch.device(wanted["device"])
    n_steps = wanted["warmup"] + wanted["steps"]
    spec = TrainingSpec.model_validate(
        {
            "n_steps": n_steps,
            "batch_size": wanted["batch"],
            "crop_px": wanted["side"],
            "device": wanted["device"],
            **wanted["settings"],
        }
    )
    torch.set_num_threads(wanted["threads"])
    entry = catalog()[wanted["model"]]
    sampler = Sampler(
        SplitTiles(Path(wanted["index"]), "train", cache_mb=wanted["cache_mb"]),
        batch_size=spec.batch_size,
        crop_px=spec.crop_px,
        flips=True,
        seed=SEED,
        needs=entry.needs_of(wanted["preset"]),
        unpaired=entry.pairing == "unpaired",
    )
    method = build(wanted["model"], wanted["preset"], wanted["side"], wanted.get("options", {}))
    method.to(device)
    method.train()
    players = make_players(method, precision=spec.precision, device=device)
    speed_up(method, spec, device=device, where="settings")

    waits = Waits(device)
    losses: list[Tensor] = []
    began = time.monotonic()
    first_s = wall = cpu = 0.0
    loader = iter(batches(sampler, range(n_steps), workers=wanted["workers"], pin=device.type == "cuda"))
    for step in range(n_steps):
        if step == wanted["warmup"]:
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            waits = Waits(device)
            first_s, wall, cpu = time.monotonic() - began, time.monotonic(), time.process_time()
        asked = time.monotonic()
        loaded = next(loader)
        waits.blocked_s += time.monotonic() - asked
        batch = loaded.to(device)
        waits.mark()
        torch.manual_seed(step_seed(SEED, step, 0))
        at = Progress(step, n_steps, sampler.steps_per_epoch, seed=step_seed(SEED, step))
        *_, (_, terms) = iterate(method, batch, at, players, pieces=spec.accumulation, precision=spec.precision)
        losses.append(terms["loss"])
        waits.mark()
    idle = waits.share(time.monotonic() - wall)
    wall_s = time.monotonic() - wall
    return {
        "steps_s": wanted["steps"] / wall_s,
        "cpu_s": (time.process_time() - cpu) / wanted["steps"],
        "idle": idle,
        "warmup_s": first_s,
        "loss": float(torch.stack(losses[-LAST:]).float().mean()),
        "device_mb": torch.cuda.max_memory_allocated() / 1e6 if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
    }


if __name__ == "__main__":
    print(json.dumps(train(json.loads(sys.argv[1]))))
