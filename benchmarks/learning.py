"""Whether every model learns: `small` presets on drawn restained sections, against a colour map and the H&E as it is.

    python benchmarks/learning.py FOLDER [--seeds 0,1,2] [--models pix2pix,cssp2p] [--cores 2] [--table-only]

Runs the workflow in FOLDER with docs/examples/learning.yaml, whose runs are those of its matrix, or the given models
with the given seeds; what is finished there stays, and a training that was stopped goes on. Prints the table and
writes `learning.csv` and `learning.jpg` (three test tiles: H&E, real IHC and every model's) into FOLDER.

A model beats the colour map when `iod_ccc` over the test tiles and the mean `dab_dice` of positive tiles are above the
best run's of `pixel_map`, and the H&E when its stand-in Fréchet distance is below that of `identity`. A positive tile
has DAB on 5 % or more of its real tissue. CPU minutes are those of the rule `train`, with everything it starts.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image, ImageDraw

from hepipe.config import Config, load_config
from hepipe.evaluation.pairs import PairedTiles
from hepipe.stores.tables import SCORES, read_table

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = REPOSITORY / "docs" / "examples" / "learning.yaml"
DATASET, SPLIT = "restained", "test"
RIVALS = ("identity", "mean_colour", "pixel_map")
POSITIVE_FRAC = 0.05
SHOWN_PX = 150
PER_ROW = 7


@dataclass(frozen=True)
class Result:
    """What one run reached on the test tiles."""

    run: str
    model: str
    seed: int
    cpu_min: float
    iod_ccc: float
    dab_dice: float
    fd: float
    psnr: float
    ssim: float
    fractions: Mapping[str, float]


def write_config(path: Path, *, models: Sequence[str], seeds: Sequence[int]) -> Config:
    """The example's configuration, its runs replaced by models with seeds where any are given."""
    given = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
    if models or seeds:
        plain = load_config(given)
        found = models or list(dict.fromkeys(run.model for run in plain.runs.values()))
        own = {"model": list(found), "preset": "small", "dataset": DATASET, "seed": list(seeds) or [0]}
        base = {"model": ["identity", "pixel_map"], "preset": "small", "dataset": DATASET}
        own["model"] = [model for model in own["model"] if model not in base["model"]]
        given["runs"] = {"matrix": [base, *([own] if own["model"] else [])]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(given, sort_keys=False), encoding="utf-8")
    return load_config(given)


def run_workflow(folder: Path, config: Path, runs: Sequence[str], *, cores: str) -> None:
    """Everything up to the scores of the runs; other runs go on when one fails."""
    targets = [f"results/runs/{run}/on/{DATASET}/{SPLIT}/scores.parquet" for run in runs]
    command = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(config), "--cores", cores, "--keep-going", "--rerun-incomplete", "--quiet", "rules"]
    subprocess.run([*command, "--", *targets], check=False)


def results(folder: Path, config: Config) -> Iterator[Result]:
    """Of every run that is finished."""
    for name, run in config.runs.items():
        scores = folder / "results" / "runs" / name / "on" / DATASET / SPLIT / "scores.parquet"
        if scores.is_file():
            yield result(name, run.model, run.seed, scores, cpu_minutes(folder, name))


def result(name: str, model: str, seed: int, scores: Path, cpu_min: float) -> Result:
    """Means over tiles; those of undefined values are over the others."""
    of_tile: dict[str, dict[str, float]] = {}
    of_set: dict[str, float] = {}
    for row in read_table(scores, SCORES):
        value = math.nan if row["value"] is None else float(row["value"])
        if row["tile_id"] is not None:
            of_tile.setdefault(row["metric"], {})[row["tile_id"]] = value
        elif row["case_id"] is None:
            of_set[row["metric"]] = value
    fractions = of_tile["dab_pos_fraction_real"]
    positive = [tile for tile, fraction in fractions.items() if fraction >= POSITIVE_FRAC]

    def mean(metric: str, tiles: Sequence[str] | None = None) -> float:
        return float(np.nanmean([of_tile[metric][tile] for tile in (tiles or of_tile[metric])]))

    return Result(
        run=name,
        model=model,
        seed=seed,
        cpu_min=cpu_min,
        iod_ccc=of_set["iod_ccc"],
        dab_dice=mean("dab_dice", positive),
        fd=of_set["fd_effnetlite0"],
        psnr=mean("psnr"),
        ssim=mean("ssim"),
        fractions=fractions,
    )


def cpu_minutes(folder: Path, run: str) -> float:
    """Of training, as Snakemake measured; nan when it did not."""
    path = folder / "results" / "benchmarks" / "train" / f"{run}.tsv"
    try:
        with path.open(encoding="utf-8") as file:
            return float(next(csv.DictReader(file, delimiter="\t"))["cpu_time"]) / 60
    except (OSError, LookupError, ValueError, StopIteration):
        return math.nan


def table(found: Sequence[Result]) -> list[dict[str, str]]:
    """Rows for people, the two rivals first."""
    maps = [one for one in found if one.model == "pixel_map"]
    plain = [one for one in found if one.model == "identity"]
    ccc = max((one.iod_ccc for one in maps), default=math.nan)
    dice = max((one.dab_dice for one in maps), default=math.nan)
    fd = min((one.fd for one in plain), default=math.nan)
    rows = []
    for one in sorted(found, key=lambda one: (one.model not in RIVALS, one.model, one.seed)):
        beats = [one.iod_ccc > ccc, one.dab_dice > dice, one.fd < fd]
        rows.append(
            {
                "model": one.model,
                "seed": str(one.seed),
                "CPU min": f"{one.cpu_min:.1f}",
                "iod_ccc": f"{one.iod_ccc:.3f}",
                "- map": f"{one.iod_ccc - ccc:+.3f}",
                "dab_dice": f"{one.dab_dice:.3f}",
                "- map ": f"{one.dab_dice - dice:+.3f}",
                "fd_effnetlite0": f"{one.fd:.1f}",
                "- identity": f"{one.fd - fd:+.1f}",
                "psnr": f"{one.psnr:.2f}",
                "ssim": f"{one.ssim:.3f}",
                "beats": "" if one.model in RIVALS else " ".join("yes" if each else "no" for each in beats),
            }
        )
    return rows


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """As Markdown."""
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + " --- |" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(row.values()) + " |")


def picture(folder: Path, found: Sequence[Result], path: Path) -> None:
    """Three test tiles, with much DAB, some and none: H&E, real IHC and the first seed of every model."""
    fractions = found[0].fractions
    by_dab = sorted(fractions, key=lambda tile: (fractions[tile], tile))
    positive = [tile for tile in by_dab if fractions[tile] >= POSITIVE_FRAC]
    chosen = [positive[int(0.9 * len(positive))], positive[len(positive) // 2], by_dab[len(by_dab) // 10]]
    first = {one.model: one for one in sorted(found, key=lambda one: -one.seed)}
    shown = sorted(first.values(), key=lambda one: (one.model != "pixel_map", one.model))
    columns: dict[str, list[np.ndarray]] = {}
    for one in (each for each in shown if each.model not in ("identity", "mean_colour")):
        virtual = folder / "results" / "runs" / one.run / "on" / DATASET / SPLIT / "virtual.zarr"
        pairs = {
            pair.tile_id: pair for pair in PairedTiles(folder / "results" / DATASET / "index.parquet", SPLIT, virtual)
        }
        columns.setdefault("H&E", [pairs[tile].he for tile in chosen])
        columns.setdefault("real IHC", [pairs[tile].real for tile in chosen])
        columns[one.model] = [pairs[tile].fake for tile in chosen]
    names = list(columns)
    blocks = []
    for start in range(0, len(names), PER_ROW):
        part = names[start : start + PER_ROW]
        blocks.append(_block({name: columns[name] for name in part}, width=min(PER_ROW, len(names)) * SHOWN_PX))
    Image.fromarray(np.vstack(blocks)).save(path, quality=85)


def _block(columns: Mapping[str, Sequence[np.ndarray]], *, width: int) -> np.ndarray:
    """Columns of tiles under their names."""
    size = (SHOWN_PX, SHOWN_PX)
    tiles = [
        np.vstack([cv2.resize(tile, size, interpolation=cv2.INTER_AREA) for tile in each]) for each in columns.values()
    ]
    grid = np.hstack(tiles)
    block = np.full((grid.shape[0] + 16, width, 3), 255, np.uint8)
    block[16:, : grid.shape[1]] = grid
    image = Image.fromarray(block)
    words = ImageDraw.Draw(image)
    for place, name in enumerate(columns):
        words.text((place * SHOWN_PX + 4, 2), name, fill=(0, 0, 0))
    return np.asarray(image)


def main() -> None:
    """Read the command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path)
    words.add_argument("--seeds", default="", help="Numbers with commas between; empty: as the example says.")
    words.add_argument("--models", default="", help="Names with commas between; empty: those of the example.")
    words.add_argument("--cores", default="all")
    words.add_argument("--table-only", action="store_true", help="Run nothing; show what is there.")
    given = words.parse_args()
    folder = given.folder.resolve()
    path = folder / "learning.yaml"
    seeds = [int(seed) for seed in given.seeds.split(",") if seed]
    config = write_config(path, models=[name for name in given.models.split(",") if name], seeds=seeds)
    if not given.table_only:
        run_workflow(folder, path, list(config.runs), cores=given.cores)
    found = list(results(folder, config))
    if not found:
        sys.exit("no run is finished")
    rows = table(found)
    print_table(rows)
    with (folder / "learning.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    picture(folder, found, folder / "learning.jpg")
    if missing := sorted(config.runs.keys() - {one.run for one in found}):
        sys.exit(f"not finished: {', '.join(missing)}")


if __name__ == "__main__":
    main()
