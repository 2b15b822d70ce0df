"""Commands that use a registration by hand: a slide, or points, in the other slide's frame."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hepipe.cli.options import Checked, InPath, MppHe, MppIhc, Stain, TransformPath
from hepipe.cli.pairs import open_given, open_pair
from hepipe.errors import ConfigError

if TYPE_CHECKING:
    from hepipe.geometry import Transform
    from hepipe.slides.reader import Slide

MPP_MISMATCH = 0.01
"""How far a slide's pixel size may be from the one that a transform was made for."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("warp")(warp)
    app.command("warp-points")(warp_points)


def warp(
    he: InPath,
    ihc: InPath,
    transform: TransformPath,
    of: Annotated[Stain, typer.Option(help="Which slide is written, in the frame of the other.")],
    out: Annotated[Path, typer.Option(help="The TIFF to write, whole or not at all.")],
    checked: Checked = None,
    mpp_he: MppHe = "",
    mpp_ihc: MppIhc = "",
    mpp: Annotated[
        float | None,
        typer.Option(help="µm per px of the result; default: the frame's level 0, or the coarser of both slides."),
    ] = None,
    format: Annotated[
        Literal["pyramid", "ome"],
        typer.Option(
            help="pyramid: levels as pages, all of which openslide, tiffslide and tifffile open. "
            "ome: OME-TIFF, levels as sub-IFDs; openslide opens level 0 only."
        ),
    ] = "pyramid",
    compression: Annotated[
        Literal["jpeg", "deflate"], typer.Option(help="jpeg, colour at full resolution; or lossless deflate.")
    ] = "jpeg",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of the JPEG.")] = 90,
    workers: Annotated[int | None, typer.Option(min=1, max=64, help="Threads; default: the CPUs, at most 4.")] = None,
) -> None:
    """Write one slide as the other lies: a pyramid TIFF, white where the other has no counterpart."""
    from hepipe.registration.warped_pyramid import warp_slide
    from hepipe.slides.writer import PyramidForm
    from hepipe.stores.cases import read_checked

    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"--out {out.name}: .tif or .tiff expected")
    if any(out.exists() and out.samefile(slide) for slide in (he, ihc)):
        raise ConfigError(f"--out {out.name}: would replace one of the two slides; give another")
    if checked is not None and (mpp_he or mpp_ihc):
        raise ConfigError("--mpp-he and --mpp-ihc go without --checked, which holds both")
    moving_from_fixed = _read(transform, to=of)
    opened = open_given(he, ihc, mpp_he, mpp_ihc) if checked is None else open_pair(he, ihc, read_checked(checked))
    with opened as slides:
        fixed, moving = slides if of == "ihc" else slides[::-1]
        _refuse_other_slides(moving_from_fixed, fixed, moving, transform)
        asked = max(fixed.mpp, moving.mpp) if mpp is None else mpp
        if not moving.mpp * (1 - MPP_MISMATCH) <= asked <= 1000 * moving.mpp:
            raise ConfigError(
                f"--mpp {asked:g}: {moving.slide_id} has {moving.mpp:g} µm per px at level 0; "
                f"{moving.mpp:g} to {1000 * moving.mpp:g} expected"
            )
        written = warp_slide(
            moving,
            moving_from_fixed,
            out,
            fixed_size_px0=fixed.size_px0,
            mpp=asked,
            form=PyramidForm(format, compression, quality),
            has_mpp=moving.mpp_from != "unknown",
            workers=workers or min(os.cpu_count() or 1, 4),
        )
    typer.echo(
        f"{out}: {written.size[0]} x {written.size[1]} px, {written.levels} levels, "
        f"{written.mpp:g} µm per px{'' if moving.mpp_from != 'unknown' else ' nominally (unknown, not in the file)'}; "
        f"{written.shown_frac:.1%} lie on {moving.slide_id}, the rest is white"
    )


def warp_points(
    transform: TransformPath,
    points: Annotated[
        Path,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Table with columns X and Y or x and y (.csv, .tsv, .txt), or GeoJSON as QuPath exports it "
            "(.geojson, .json); px of level 0.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Of the same kind; written whole or not at all.")],
    from_: Annotated[Stain, typer.Option("--from", help="The slide that the points lie on.")],
    to: Annotated[Stain, typer.Option(help="The slide that they are wanted on.")],
) -> None:
    """Send points and outlines of one slide to the other; what lies beyond the field follows the affine part.

    A table repeats its header, other columns and rows as they are and gains a last column `extrapolated` (0 or 1);
    features of GeoJSON get the property `extrapolated: true`. Outlines keep their vertices, as in QuPath.
    """
    from hepipe.registration.points import Way
    from hepipe.registration.points import warp_points as send

    if from_ == to:
        raise ConfigError(f"--from and --to are both {to}; one he, the other ihc")
    # The stored inverse is one on its grid; points are worth a solution of their own.
    forward = _read(transform, to="ihc") if to == "he" else None
    moved = send(points, out, Way(_read(transform, to=to), forward))
    typer.echo(f"{out}: {moved.points} points, {moved.extrapolated} of them extrapolated by the affine part")


def _read(path: Path, *, to: Stain) -> Transform:
    """The transform whose points lie on slide `to`: it finds the pixels of that slide, and sends points there.

    Raises:
        ConfigError: Not a registration, or one of a failed case.
        StoreError: A registration that cannot be trusted.
    """
    from hepipe.stores.arrays import read_registered

    if not (path / "zarr.json").is_file():
        raise ConfigError(f"--transform {path}: no registration; the folder that hepipe register writes expected")
    registered = read_registered(path)
    found = registered.ihc_from_he if to == "ihc" else registered.he_from_ihc
    if found is None:
        status = registered.provenance.status
        reason = f" ({status.reason})" if status.reason else ""
        raise ConfigError(
            f"--transform {path}: case {registered.provenance.subject} is {status.state}{reason} and holds no "
            f"transform to the {to} slide; register the pair again"
        )
    return found


def _refuse_other_slides(transform: Transform, fixed: Slide, moving: Slide, path: Path) -> None:
    """Stop where a transform was made for slides of another pixel size or extent.

    Raises:
        ConfigError: It was.
    """
    for slide, mpp in ((fixed, transform.fixed_mpp), (moving, transform.moving_mpp)):
        if abs(slide.mpp / mpp - 1) > MPP_MISMATCH:
            raise ConfigError(
                f"--transform {path}: made for {mpp:g} µm per px, {slide.slide_id} has {slide.mpp:g}; "
                "give the pixel sizes that the pair was registered with (--mpp-he, --mpp-ihc or --checked)"
            )
    if transform.field_um is not None:
        rows, columns = transform.field_um.shape[1:]
        covered = [round(count * transform.grid_um / transform.fixed_mpp) for count in (columns, rows)]
        step = transform.grid_um / transform.fixed_mpp
        if any(abs(a - b) > step + 0.01 * b for a, b in zip(covered, fixed.size_px0, strict=True)):
            raise ConfigError(
                f"--transform {path}: made for a slide of about {covered[0]} x {covered[1]} px, {fixed.slide_id} has "
                f"{fixed.size_px0[0]} x {fixed.size_px0[1]}; give the slides that were registered"
            )
