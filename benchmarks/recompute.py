"""Peak memory and CPU seconds a step of models that run their generator again, against graphs kept over a turn.

    python benchmarks/recompute.py [--size PX] [--batch N] [--steps N] [--preset small] [--record ROWS.json] [MODEL ...]

Four settings of a model, each in a process of its own: the whole batch, and one tile at a time, kept and recomputed.
All see the same tiles from the same weights. Memory is the largest that the process held, imports included.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from bars.child import run
from bars.table import Table
from trainbars.drawn import draw_set

from hepipe.models.catalog import catalog
from hepipe.models.resolved import zoo_module
from hepipe.progress import watched
from hepipe.specs.base import Spec


class Settings(Spec):
    """What was measured."""

    preset: str
    size: int
    batch: int
    steps: int


def one(model: str, spec: Settings, index: Path, *, pieces: int, again: bool, steps: int) -> dict[str, Any]:
    """What a run printed, with the peak of its process."""
    wanted = {
        "model": model,
        "preset": spec.preset,
        "side": spec.size,
        "batch": spec.batch,
        "steps": steps,
        "warmup": 0,
        "device": "cpu",
        "threads": 1,
        "workers": 0,
        "cache_mb": 0,
        "index": str(index),
        "options": {"recompute": again},
        "settings": {"accumulation": pieces},
    }
    ran = run([sys.executable, str(Path(__file__).parent / "trainbars" / "one.py"), json.dumps(wanted)])
    if ran.status != 0:
        raise SystemExit(f"{model}: exit {ran.status}: {ran.last}")
    said: dict[str, Any] = json.loads(ran.last)
    return {**said, "peak_mb": ran.peak_mb}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    having = [name for name in sorted(catalog()) if "recompute" in zoo_module(name).Config.model_fields]
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(having)}; all when none is named")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--size", type=int, default=256, help="side of the crop, px")
    parser.add_argument("--batch", type=int, default=4, help="tiles a step, and pieces it is cut into")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    spec = Settings(preset=options.preset, size=options.size, batch=options.batch, steps=options.steps)
    table = Table("recompute", spec, about="graphs kept > made again, one thread", record=options.record)
    models = options.models or having
    with tempfile.TemporaryDirectory() as folder:
        index = draw_set(Path(folder) / "set", tiles=8, side=spec.size)
        for model in watched(models, "training", total=len(models), unit="model"):
            for pieces in (1, spec.batch):
                kept, again = (
                    one(model, spec, index, pieces=pieces, again=way, steps=spec.steps) for way in (False, True)
                )
                cut = f"in {pieces} pieces" if pieces > 1 else "whole"
                table.add(
                    f"{model} {spec.preset}, {spec.batch} x {spec.size} px {cut}",
                    f"peak {kept['peak_mb']:.0f} > {again['peak_mb']:.0f} MB "
                    f"({again['peak_mb'] / kept['peak_mb']:.2f} ×), CPU {kept['cpu_s']:.2f} > {again['cpu_s']:.2f} "
                    f"s a step ({again['cpu_s'] / kept['cpu_s']:.2f} ×), loss {kept['loss']:.6g} > {again['loss']:.6g}",
                )


if __name__ == "__main__":
    main()
