"""DeeperHistReg on one pair of pictures, run by the interpreter of its own environment.

    FOLDER/bin/python deeperhistreg_run.py HE IHC POINTS.csv OUT.csv [--preset default_initial_nonrigid_fast]

POINTS.csv has columns x,y: px of the H&E picture; OUT.csv the same points on the IHC picture. Its whole pipeline as its
users run it (loader, padding, preprocessing, initial alignment, optimisation), on the CPU, without writing full images:
the points go through the displacement field that it saves, so the half-pixel shift of its image warp does not count
against it.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

import numpy as np


def main() -> None:
    """Register and move the points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("he", "ihc", "points", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--preset", default="default_initial_nonrigid_fast")
    options = parser.parse_args()
    import deeperhistreg
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    parameters = getattr(deeperhistreg.configs, options.preset)()
    # The presets name cuda:0 in three places; without one it stops.
    parameters["device"] = "cpu"
    for part in ("initial_registration_params", "nonrigid_registration_params"):
        parameters[part]["device"] = "cpu"
    parameters["initial_registration_params"]["cuda"] = False
    # The pictures are small: whole, by the loader for pictures.
    parameters["loading_params"].update(loader="pil", source_resample_ratio=1.0, target_resample_ratio=1.0)
    parameters.update(save_final_images=False, case_name="pair", logging_path=None)
    for part in ("preprocessing_params", "initial_registration_params", "nonrigid_registration_params"):
        parameters[part]["save_results"] = False
    with tempfile.TemporaryDirectory() as folder:
        pipeline = deeperhistreg.direct_registration.DeeperHistReg_FullResolution(parameters)
        pipeline.run_registration(str(options.ihc), str(options.he), folder)
        final = next(Path(folder).rglob("displacement_field.mha")).parent
        field = sitk.GetArrayFromImage(sitk.ReadImage(str(final / "displacement_field.mha")))
        padding = json.loads((final / "postprocessing_params.json").read_text())
    with options.points.open(newline="") as file:
        points = np.array([[float(row["x"]), float(row["y"])] for row in csv.DictReader(file)])
    moved = through(field, points, padding)
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["x", "y"])
        writer.writerows(moved.tolist())


def through(field: np.ndarray, points: np.ndarray, padding: dict) -> np.ndarray:
    """Points of the target (H&E) on the source (IHC): onto the padded, resampled canvas, along the field, and back."""
    ratio = float(padding.get("initial_resample_ratio", 1.0))
    (source_y, _), (source_x, _) = padding["pad_1"]
    (target_y, _), (target_x, _) = padding["pad_2"]
    canvas = (points + np.array([target_x, target_y])) / ratio
    height, width = field.shape[-2:]
    x, y = (canvas[:, axis] - 0.5 for axis in (0, 1))
    x, y = x.clip(0, width - 1), y.clip(0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    right, low = x - left, y - top
    shift = sum(
        field[:, top + dy, left + dx] * (right if dx else 1 - right) * (low if dy else 1 - low)
        for dy in (0, 1)
        for dx in (0, 1)
    )
    return (canvas + shift.T) * ratio - np.array([source_x, source_y])


if __name__ == "__main__":
    main()
