"""DeeperHistReg's registration core as one step, in a process of its own.

Wodzinski et al., DeeperHistReg: robust whole slide images registration framework, 2024. An optional extra, imported in
`dhr_process.py` only: its import changes `sys.path` and loads packages with common names, and memory goes back with the
process. Of the package only the initial alignment and the optimisation are used; reading, padding and the warp are our
own, which avoids its half-px shift of full-resolution warps, black borders, the pages of vendor files taken for levels,
and two mpp that are honoured at load only.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.errors import ConfigError, HepipeError
from hepipe.geometry import Transform, translation
from hepipe.registration.overview import Pictures, look, positions, read_pictures
from hepipe.registration.transform import from_mapping
from hepipe.slides.reader import Slide
from hepipe.specs.registration import DeeperHistRegSpec, RegistrationSpec

NEEDS = ("deeperhistreg", "pyvips", "torch")
"""torchvision is not among them: the process brings a stand-in for the two transforms that are used."""
BAD_CONFIG = 78
"""Exit status of the process where the task asks for what the package or the machine does not have."""
STRIDE = 4
"""Px of the picture per px of the stored field; the process thins its result so."""


@dataclass(frozen=True)
class DeeperHistReg:
    """What came of the step.

    Attributes:
        transform: `ihc_from_he`; None when its initial alignment found nothing, which it would pass on as identity.
        note: For the record of the chain; empty when there is nothing to say.
        matches: Of its initial alignment; None when that did not run or does not count them.
    """

    transform: Transform | None
    note: str
    matches: int | None = None


def register_deeperhistreg(
    he: Slide, ihc: Slide, start: Transform, spec: RegistrationSpec, *, case_id: str, pictures: Pictures
) -> DeeperHistReg:
    """DeeperHistReg on top of `start`, or from its own initial alignment in place of it.

    Args:
        he: The fixed slide; read again only when the step has a picture size of its own.
        ihc: The moving slide.
        start: `ihc_from_he` so far.
        spec: The chain's settings.
        case_id: For errors.
        pictures: Those of the chain.

    Raises:
        ConfigError: A package, preset, parameter or device is missing.
        HepipeError: The process failed or ran out of time: the machine's fault or a bug, no verdict on the case.
    """
    own = spec.deeperhistreg
    if own.overview_px is not None:
        pictures = read_pictures(he, ihc, max_px=own.overview_px)
    return optimize_deeperhistreg(pictures, start, own, threads=spec.threads, case_id=case_id)


def optimize_deeperhistreg(
    pictures: Pictures, start: Transform, spec: DeeperHistRegSpec, *, threads: int, case_id: str
) -> DeeperHistReg:
    """The step on given pictures; see `register_deeperhistreg`.

    Without its initial alignment the IHC picture is looked at through `start`, so DeeperHistReg begins at rest; with
    it both pictures are put in the middle of one white canvas.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"registration.chain: the step deeperhistreg needs {', '.join(missing)}; install 'hepipe[register,train]' "
            "or take the chain [search, affine, elastic]"
        )
    height, width = pictures.fixed.shape[:2]
    if spec.initial:
        shapes = (pictures.fixed.shape, pictures.moving.shape)
        canvas = (max(shape[0] for shape in shapes), max(shape[1] for shape in shapes))
        (fixed, fixed_at), (moving, moving_at) = (on_canvas(one, canvas) for one in (pictures.fixed, pictures.moving))
    else:
        small = pictures.small(start)
        fixed, fixed_at, moving_at = pictures.fixed, (0, 0), (0, 0)
        moving = look(pictures.moving, positions(small, shape=(height, width)), outside=(255.0,) * 4)
    found = _run(dark_on_zero(fixed), dark_on_zero(moving), spec, threads=threads, case_id=case_id)
    matches = int(found["matches"])
    if bool(found["lost"]):
        return DeeperHistReg(
            None,
            f"its initial alignment found no match ({matches} of features, at least 4 expected); start the chain with "
            "search instead of registration.deeperhistreg.initial",
            matches,
        )
    shift = np.asarray(found["shift_px"], np.float32)
    if spec.initial:
        matrix = _shift(moving_at, -1.0) @ found["matrix"] @ _shift(fixed_at, 1.0)
        placed = from_canvas(shift, fixed_at=fixed_at, moving_at=moving_at, size=(width, height))
        begin = None
    else:
        matrix, placed, begin = small.affine, shift, small

    def mapping(points: np.ndarray) -> np.ndarray:
        moved = points + placed.reshape(2, -1).T
        return moved if begin is None else begin(moved)

    together = from_mapping(
        mapping,
        matrix,
        fixed_size_px0=(width, height),
        fixed_mpp=pictures.mpp,
        moving_mpp=pictures.mpp,
        grid_um=STRIDE * pictures.mpp,
    )
    note = f"{matches} matches of its initial alignment" if matches >= 0 else ""
    return DeeperHistReg(pictures.large(together), note, matches if matches >= 0 else None)


def on_canvas(
    picture: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "ch cw 3"], tuple[int, int]]:
    """A picture in the middle of a white canvas of (height, width), and where its corner (x, y) lies there."""
    y, x = ((canvas - side) // 2 for canvas, side in zip(shape, picture.shape[:2], strict=True))
    canvas = np.full((*shape, 3), 255, np.uint8)
    canvas[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return canvas, (x, y)


def from_canvas(
    shift: Float32[np.ndarray, "2 ch cw"],
    *,
    fixed_at: tuple[int, int],
    moving_at: tuple[int, int],
    size: tuple[int, int],
) -> Float32[np.ndarray, "2 gh gw"]:
    """A canvas's displacement, one value for each `STRIDE` px, as that of the pictures that lie on it.

    Args:
        shift: On the canvas, px.
        fixed_at: Corner (x, y) of the fixed picture on the canvas.
        moving_at: The same of the moving picture.
        size: Width and height of the fixed picture, px.
    """
    columns, rows = (-(-side // STRIDE) for side in size)
    x = (np.arange(columns) + 0.5 + fixed_at[0] / STRIDE - 0.5).astype(np.float32)
    y = (np.arange(rows) + 0.5 + fixed_at[1] / STRIDE - 0.5).astype(np.float32)
    map_x, map_y = np.meshgrid(x, y)
    planes = [cv2.remap(plane, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for plane in shift]
    offset = np.subtract(fixed_at, moving_at).astype(np.float32)
    return np.stack(planes) + offset[:, None, None]


def task_of(spec: DeeperHistRegSpec, *, threads: int) -> dict[str, Any]:
    """What the process is told."""
    return {
        "preset": spec.preset,
        "initial": spec.initial,
        "parameters": {name: dict(values) for name, values in spec.parameters.items()},
        "device": spec.device,
        "levels": spec.levels,
        "iterations": spec.iterations,
        "alpha": spec.alpha,
        "threads": threads,
    }


def dark_on_zero(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Inverted grey with local contrast, 0 to 1, as DeeperHistReg's own preprocessing makes it."""
    lowest = rgb.min(axis=(0, 1)).astype(np.float32)
    spread = np.maximum(rgb.max(axis=(0, 1)).astype(np.float32) - lowest, 1)
    grey = 1 - ((rgb - lowest) / spread) @ np.array([0.2989, 0.587, 0.114], np.float32)
    contrast = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply((grey * 255).astype(np.uint8))
    picture: np.ndarray = contrast.astype(np.float32) / np.float32(255)
    return picture


def _shift(corner: tuple[int, int], sign: float) -> np.ndarray:
    return translation(sign * corner[0], sign * corner[1])


def _run(
    fixed: Float32[np.ndarray, "h w"],
    moving: Float32[np.ndarray, "h w"],
    spec: DeeperHistRegSpec,
    *,
    threads: int,
    case_id: str,
) -> Mapping[str, np.ndarray]:
    """The process's answer."""
    given = io.BytesIO()
    np.savez(given, fixed=fixed, moving=moving)
    environment = {
        **os.environ,
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        # The package's own import asks matplotlib for a display.
        "MPLBACKEND": "Agg",
    }
    if spec.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    try:
        # Through pipes: a kill of both leaves nothing on disk.
        done = subprocess.run(
            [
                *(sys.executable, "-m", "hepipe.registration.dhr_process"),
                *(json.dumps(task_of(spec, threads=threads)), str(os.getpid())),
            ],
            input=given.getvalue(),
            env=environment,
            capture_output=True,
            timeout=spec.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HepipeError(
            f"case {case_id}: DeeperHistReg was ended after {spec.timeout_s:g} s "
            "(registration.deeperhistreg.timeout_s); lower overview_px or iterations"
        ) from None
    last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
    if done.returncode == BAD_CONFIG:
        raise ConfigError(last)
    if done.returncode != 0:
        raise HepipeError(f"case {case_id}: DeeperHistReg's process ended with status {done.returncode}: {last}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as result:
        return {name: np.asarray(result[name]) for name in result.files}
