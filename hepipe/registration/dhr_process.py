"""The process that runs DeeperHistReg on two small pictures; nothing else imports the package.

`python -m hepipe.registration.dhr_process LEVELS ITERATIONS ALPHA THREADS PARENT_PID`, with an npz of both pictures on
stdin and one of the displacement on stdout.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import os
import signal
import sys
import types

import numpy as np
import torch
from jaxtyping import Float32

LEARNING_RATES = (0.005, 0.0025)
"""Of the coarsest level and of all others, from the package's preset default_nonrigid_fast."""
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Read the pictures, register, write the displacement."""
    levels, iterations, alpha, threads, parent = arguments
    _die_with(int(parent))
    # What the package prints must not mix with the answer.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    with np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False) as pictures:
        fixed, moving = pictures["fixed"], pictures["moving"]
    shift = displacement(fixed, moving, levels=int(levels), iterations=int(iterations), alpha=float(alpha))
    packed = io.BytesIO()
    np.savez(packed, shift_px=shift)
    with answer:
        answer.write(packed.getvalue())


def displacement(
    fixed: Float32[np.ndarray, "h w"],
    moving: Float32[np.ndarray, "h w"],
    *,
    levels: int,
    iterations: int,
    alpha: float,
) -> Float32[np.ndarray, "2 h w"]:
    """For each px of the fixed picture how far away its partner on the moving one is, (x, y) in px."""
    _stand_in_for_torchvision()
    import deeperhistreg  # noqa: F401 (it puts its own packages on the path)
    from dhr_registration.nonrigid_registration_methods import get_function

    height, width = fixed.shape
    # Halving must leave something to correlate in windows of 7 px.
    levels = min(levels, max(1, int(np.log2(min(height, width) / 16)) + 1))
    settings = {
        "device": "cpu",
        "echo": False,
        "cost_function": "ncc_local",
        "cost_function_params": {"win_size": 7},
        "regularization_function": "diffusion_relative",
        "regularization_function_params": {},
        "registration_size": max(height, width),
        "num_levels": levels,
        "used_levels": levels,
        "iterations": [iterations] * levels,
        "learning_rates": [LEARNING_RATES[0]] + [LEARNING_RATES[1]] * (levels - 1),
        "alphas": [alpha] * levels,
    }
    source, target = (torch.from_numpy(np.ascontiguousarray(picture))[None, None] for picture in (moving, fixed))
    register = get_function("instance_optimization_nonrigid_registration")
    # Coordinates from -1 to 1 across the picture, edge to edge.
    field = register(source, target, None, settings).detach()[0].numpy()
    return np.stack([field[..., 0] * width / 2, field[..., 1] * height / 2]).astype(np.float32)


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
