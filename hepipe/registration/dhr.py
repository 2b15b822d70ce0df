"""DeeperHistReg's instance optimisation as one step, in a process of its own.

Wodzinski et al., DeeperHistReg: robust whole slide images registration framework, 2024. An optional extra, imported in
`dhr_process.py` only: its import changes `sys.path` and loads packages with common names, and memory goes back with the
process. Of the package only the optimisation is used; reading, the start and the warp are our own, which avoids its
half-px shift of full-resolution warps, black borders and the pages of vendor files taken for levels.
"""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from hepipe.errors import ConfigError, HepipeError
from hepipe.geometry import Transform
from hepipe.registration.overview import Pictures, look, on_top, positions
from hepipe.registration_spec import RegistrationSpec

NEEDS = ("deeperhistreg", "pyvips", "torch")
"""torchvision is not among them: the process brings a stand-in for the two transforms that are used."""


def refine_deeperhistreg(pictures: Pictures, start: Transform, spec: RegistrationSpec, *, case_id: str) -> Transform:
    """A dense displacement on top of `start`, a transform between the pictures.

    The IHC picture is looked at through `start`, so DeeperHistReg begins at rest; its field maps the fixed picture to
    that view, as its displacement does by itself.

    Raises:
        ConfigError: A package is missing.
        HepipeError: The process failed or ran out of time: the machine's fault or a bug, no verdict on the case.
    """
    missing = [name for name in NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"registration.chain: the step deeperhistreg needs {', '.join(missing)}; install 'hepipe[register,train]' "
            "or take the chain [search, affine, elastic]"
        )
    height, width = pictures.fixed.shape[:2]
    seen = look(pictures.moving, positions(start, shape=(height, width)), outside=(255.0, 255.0, 255.0, 255.0))
    given = io.BytesIO()
    np.savez(given, fixed=dark_on_zero(pictures.fixed), moving=dark_on_zero(seen))
    own = spec.deeperhistreg
    settings = (own.levels, own.iterations, own.alpha, spec.threads, os.getpid())
    threads = {name: str(spec.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    try:
        # Through pipes: a kill of both leaves nothing on disk.
        done = subprocess.run(
            [sys.executable, "-m", "hepipe.registration.dhr_process", *map(str, settings)],
            input=given.getvalue(),
            env={**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            timeout=own.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HepipeError(
            f"case {case_id}: DeeperHistReg was ended after {own.timeout_s:g} s "
            "(registration.deeperhistreg.timeout_s); lower overview_px or iterations"
        ) from None
    if done.returncode != 0:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise HepipeError(f"case {case_id}: DeeperHistReg's process ended with status {done.returncode}: {last}")
    with np.load(io.BytesIO(done.stdout), allow_pickle=False) as result:
        shift = np.asarray(result["shift_px"], np.float32)
    return on_top(start, shift, size=(width, height))


def dark_on_zero(rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Inverted grey with local contrast, 0 to 1, as DeeperHistReg's own preprocessing makes it."""
    lowest = rgb.min(axis=(0, 1)).astype(np.float32)
    spread = np.maximum(rgb.max(axis=(0, 1)).astype(np.float32) - lowest, 1)
    grey = 1 - ((rgb - lowest) / spread) @ np.array([0.2989, 0.587, 0.114], np.float32)
    contrast = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply((grey * 255).astype(np.uint8))
    picture: np.ndarray = contrast.astype(np.float32) / np.float32(255)
    return picture
