"""The process that runs DeeperHistReg on two small pictures; nothing else imports the package.

`python -m hepipe.registration.dhr_process TASK PARENT_PID`, TASK being JSON of `dhr.task_of`, with an npz of both
pictures on stdin and one of the result on stdout. Ends with `BAD_CONFIG` and one line on stderr where the task asks for
what the package or the machine does not have.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import json
import os
import signal
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64

from hepipe.registration.dhr import BAD_CONFIG, STRIDE

LEARNING_RATES = (0.005, 0.0025)
"""Of the coarsest level and of all others, from the package's preset default_nonrigid_fast."""
LEAST_PX = 8
"""Shorter side of the coarsest level: windows of 7 px must fit."""
MIN_MATCHES = 4
"""Fewer fix no rigid placement: two do, exactly, however wrong they are."""
PR_SET_PDEATHSIG = 1
SECTIONS = ("initial_registration_params", "nonrigid_registration_params")
OPTIONAL = {
    "initial_registration_params": {"nms_radius", "max_keypoints", "num_features", "sparse_size", "keypoint_size"},
    "nonrigid_registration_params": set[str](),
}
"""Keys that the package reads and its presets do not hold."""
NONRIGID = (
    "instance_optimization_nonrigid_registration",
    "instance_optimization_nonrigid_registration_lbfgs",
    "identity_nonrigid_registration",
)
"""The package's functions that return a displacement; its B-splines return control points."""
PER_LEVEL = ("iterations", "learning_rates", "alphas")

Parameters = dict[str, Any]


def main(arguments: list[str]) -> None:
    """Read the pictures, register, write the result."""
    task, parent = json.loads(arguments[0]), int(arguments[1])
    _die_with(parent)
    # What the package prints must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(int(task["threads"]))
    cv2.setNumThreads(int(task["threads"]))
    torch.manual_seed(0)
    cv2.setRNGSeed(0)
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as pictures:
        fixed, moving = pictures["fixed"], pictures["moving"]
    found = registered(fixed, moving, task)
    packed = io.BytesIO()
    np.savez(packed, allow_pickle=False, **found)
    with answer:
        answer.write(packed.getvalue())


def registered(
    fixed: Float32[np.ndarray, "h w"], moving: Float32[np.ndarray, "h w"], task: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The package's one or two steps.

    Returns:
        `matrix`, 3 x 3, moving px from fixed px: what the initial alignment found, else the identity; `shift_px`
        (2, ceil(h / STRIDE), ceil(w / STRIDE)), where each px of the fixed picture lies on the moving one less where
        it is itself; `matches`, -1 where nothing counts them; `levels` that were run.
    """
    _stand_in_for_torchvision()
    import deeperhistreg  # it puts its own packages on the path
    from dhr_registration import initial_alignment_methods, nonrigid_registration_methods
    from dhr_utils import warping

    device = _device(task["device"])
    initial, nonrigid = _parameters(deeperhistreg.configs, task, device=device)
    source, target = (torch.from_numpy(np.ascontiguousarray(one))[None, None].to(device) for one in (moving, fixed))
    matrix, field, matches = np.eye(3), None, -1
    if initial is not None:
        counts = _counting(initial_alignment_methods.mf)
        align = initial_alignment_methods.get_function(initial["initial_registration_function"])
        # The package searches with gradients on, which keeps every picture of it in memory.
        with torch.no_grad():
            theta = align(source, target, initial).to(torch.float32)
            field = warping.tc_transform_to_tc_df(theta, source.size())
        matches = max(counts, default=-1)
        matrix = px_from_theta(theta[0].double().cpu().numpy(), size=(fixed.shape[1], fixed.shape[0]))
    lost = initial is not None and (0 <= matches < MIN_MATCHES or np.allclose(matrix, np.eye(3), atol=1e-6))
    levels = 0
    if nonrigid is not None and not lost:
        nonrigid = _fitting(nonrigid, min(fixed.shape))
        levels = int(nonrigid.get("used_levels", 0))
        optimize = nonrigid_registration_methods.get_function(nonrigid["nonrigid_registration_function"])
        field = optimize(source, target, field, nonrigid)
    shift = np.zeros((2, 1, 1), np.float32) if field is None or lost else thinned(_in_px(field))
    return {
        "matrix": matrix,
        "shift_px": shift,
        "matches": np.array(0 if lost and matches < 0 else matches),
        "lost": np.array(lost),
        "levels": np.array(levels),
    }


def px_from_theta(theta: Float64[np.ndarray, "2 3"], *, size: tuple[int, int]) -> Float64[np.ndarray, "3 3"]:
    """A matrix of coordinates from -1 to 1, edge to edge, as one of px (continuous, corner 0)."""
    width, height = size
    unit_from_px = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])
    matrix: np.ndarray = np.linalg.inv(unit_from_px) @ np.vstack([theta, [0, 0, 1]]) @ unit_from_px
    return matrix


def thinned(shift: Float32[np.ndarray, "2 h w"]) -> Float32[np.ndarray, "2 sh sw"]:
    """A field at the centres of squares of `STRIDE` px: the mean of the four px around each; edges repeated."""
    rows, columns = (-side % STRIDE for side in shift.shape[1:])
    whole = np.pad(shift, ((0, 0), (0, rows), (0, columns)), mode="edge")
    low, high = STRIDE // 2 - 1, STRIDE // 2
    parts = [whole[:, y::STRIDE, x::STRIDE] for y in (low, high) for x in (low, high)]
    mean: np.ndarray = np.stack(parts).mean(axis=0).astype(np.float32)
    return mean


def _in_px(field: torch.Tensor) -> Float32[np.ndarray, "2 h w"]:
    """A displacement in coordinates from -1 to 1 as one in px."""
    values = field.detach()[0].cpu().numpy()
    height, width = values.shape[:2]
    return np.stack([values[..., 0] * width / 2, values[..., 1] * height / 2]).astype(np.float32)


def _parameters(
    configs: types.ModuleType, task: Mapping[str, Any], *, device: str
) -> tuple[Parameters | None, Parameters | None]:
    """What the initial alignment and the non-rigid step take; None for a step that does not run."""
    if not task["preset"]:
        preset: Parameters = {"run_nonrigid_registration": True, SECTIONS[0]: {}, SECTIONS[1]: _plain(task)}
    else:
        makers = {
            name: maker
            for name, maker in vars(configs).items()
            if callable(maker) and (name.startswith("default_") or name == "create_identity")
        }
        if task["preset"] not in makers:
            _refuse(
                f"registration.deeperhistreg.preset: the package has no preset {task['preset']!r}; "
                f"one of {', '.join(sorted(makers))} expected"
            )
        preset = makers[task["preset"]]()
    for section in SECTIONS:
        known = {*preset[section], *OPTIONAL[section]}
        for key, value in task["parameters"].get(section, {}).items():
            if key not in known:
                _refuse(
                    f"registration.deeperhistreg.parameters.{section}: no parameter {key!r}; "
                    f"one of {', '.join(sorted(known))} expected"
                )
            preset[section][key] = value
        preset[section].update(device=device, echo=False, show=False)
    initial = preset[SECTIONS[0]] if task["initial"] else None
    if initial is not None:
        initial["cuda"] = device != "cpu"
        if initial.get("initial_registration_function", "identity_initial_alignment") == "identity_initial_alignment":
            _refuse(
                f"registration.deeperhistreg.initial: the preset {task['preset']!r} has no initial alignment; take "
                "default_initial_nonrigid_fast or another with initial in its name"
            )
    nonrigid = preset[SECTIONS[1]] if preset["run_nonrigid_registration"] else None
    if nonrigid is not None and nonrigid["nonrigid_registration_function"] not in NONRIGID:
        _refuse(
            "registration.deeperhistreg.parameters.nonrigid_registration_params.nonrigid_registration_function: "
            f"{nonrigid['nonrigid_registration_function']!r}, one of {', '.join(NONRIGID)} expected"
        )
    if initial is None and nonrigid is None:
        _refuse(
            f"registration.deeperhistreg: the preset {task['preset']!r} has no non-rigid step and `initial` is false: "
            "there is nothing to run"
        )
    return initial, nonrigid


def _plain(task: Mapping[str, Any]) -> Parameters:
    """Parameters of the non-rigid step from hepipe's own keys."""
    levels = int(task["levels"])
    return {
        "nonrigid_registration_function": NONRIGID[0],
        "cost_function": "ncc_local",
        "cost_function_params": {"win_size": 7},
        "regularization_function": "diffusion_relative",
        "regularization_function_params": {},
        # The pictures have the size that is wanted; the package only shrinks.
        "registration_size": 1_000_000,
        "num_levels": levels,
        "used_levels": levels,
        "iterations": [int(task["iterations"])] * levels,
        "learning_rates": [LEARNING_RATES[0]] + [LEARNING_RATES[1]] * (levels - 1),
        "alphas": [float(task["alpha"])] * levels,
    }


def _fitting(nonrigid: Parameters, shorter: int) -> Parameters:
    """The same without the coarsest levels that would leave nothing to correlate."""
    if "num_levels" not in nonrigid:
        return nonrigid
    levels, used = int(nonrigid["num_levels"]), int(nonrigid["used_levels"])
    for key in (name for name in PER_LEVEL if name in nonrigid):
        if len(nonrigid[key]) < used:
            _refuse(
                f"registration.deeperhistreg.parameters.nonrigid_registration_params.{key}: {len(nonrigid[key])} "
                f"values, one for each of {used} levels expected"
            )
    shorter = min(shorter, int(nonrigid["registration_size"]))
    fewer = max(0, levels - (max(0, int(np.log2(max(1, shorter / LEAST_PX)))) + 1))
    fewer = min(fewer, used - 1)
    if not fewer:
        return nonrigid
    kept = {key: nonrigid[key][fewer:] for key in PER_LEVEL if key in nonrigid}
    return {**nonrigid, **kept, "num_levels": levels - fewer, "used_levels": used - fewer}


def _counting(multi_feature: types.ModuleType) -> list[int]:
    """Numbers of matches, filled while `multi_feature` runs, which keeps them to itself."""
    counts: list[int] = []

    def noting(match: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            found = match(*arguments)
            if isinstance(found, tuple):
                counts.append(int(found[1]))
            return found

        return call

    for module, name in (
        (multi_feature.sr, "sift_ransac"),
        (multi_feature.sg, "superpoint_superglue"),
        (multi_feature.spr, "superpoint_ransac"),
    ):
        setattr(module, name, noting(getattr(module, name)))
    return counts


def _device(name: str) -> str:
    if name == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        _refuse(
            "registration.deeperhistreg.device: cuda, but torch finds no CUDA device here; take cpu, or run the "
            "registration on a machine with one"
        )
    return "cuda:0"


def _refuse(message: str) -> NoReturn:
    """End with one line for the user."""
    sys.stderr.write(f"\n{message}\n")
    sys.stderr.flush()
    sys.exit(BAD_CONFIG)


def _stand_in_for_torchvision() -> None:
    """The two transforms that DeeperHistReg uses, where torchvision is not installed; equal to the real ones."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    import torch.nn.functional as F

    class GaussianBlur:
        def __init__(self, kernel_size: int, sigma: float) -> None:
            self.size = int(kernel_size if isinstance(kernel_size, int) else kernel_size[0])
            self.sigma = float(sigma if isinstance(sigma, (int, float)) else sigma[0])

        def __call__(self, image: torch.Tensor) -> torch.Tensor:
            half = (self.size - 1) * 0.5
            weights = torch.exp(-0.5 * (torch.linspace(-half, half, self.size) / self.sigma) ** 2).to(image)
            weights = weights / weights.sum()
            kernel = (weights[:, None] * weights[None])[None, None].repeat(image.shape[1], 1, 1, 1)
            padded = F.pad(image, [self.size // 2] * 4, mode="reflect")
            return F.conv2d(padded, kernel, groups=image.shape[1])

    class Grayscale:
        def __call__(self, image: torch.Tensor) -> torch.Tensor:
            red, green, blue = image.unbind(dim=-3)
            return (0.2989 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)

    package, transforms = types.ModuleType("torchvision"), types.ModuleType("torchvision.transforms")
    transforms.GaussianBlur, transforms.Grayscale = GaussianBlur, Grayscale  # type: ignore[attr-defined]
    package.transforms = transforms  # type: ignore[attr-defined]
    sys.modules.update({"torchvision": package, "torchvision.transforms": transforms})


def _die_with(parent: int) -> None:
    """Ask Linux to end this process when its parent goes, however that ends."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that asked for this registration is gone")


if __name__ == "__main__":
    main(sys.argv[1:])
