"""SimpleITK's registration as one step: no other extra, and a second opinion.

An affine by mutual information, then a B-spline by the same, or a diffeomorphic field: demons (Vercauteren et al.,
Diffeomorphic demons, NeuroImage 2009) on the features that both stains share, as demons compare intensities. Only
tissue counts, of either picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import cv2
import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float32

from hepipe.geometry import Transform
from hepipe.registration.overview import lies_on, look, on_top, positions

BINS = 32
SEED = 121
"""Of the metric's samples; any fixed number will do."""
NEAR_PX = 7
"""The IHC's mask holds this much glass about its tissue: where the outlines differ there is something to learn."""
DEMONS_SHRINK = (4, 2, 1)
UPDATE_SIGMA_PX = 2.0
FIELD_SIGMA_PX = 6.0
"""Smoothing of each update and of the whole field, px of each resolution. With 3 for the field the whole-organ pair of
the real sections was further off (0.34 % of the diagonal, 0.27 % with 6), the four faint ones as near."""


def refine_simpleitk(
    fixed: Float32[np.ndarray, "c h w"],
    moving: Float32[np.ndarray, "c mh mw"],
    start: Transform,
    *,
    threads: int,
    iterations: int,
    deformable: Literal["bspline", "diffeomorphic", "none"] = "bspline",
    mesh: int = 6,
) -> Transform:
    """An affine and then a deformable step on top of `start`, in px of the pictures given.

    Args:
        fixed: Features of the H&E picture; the first is matched, the last masks.
        moving: The same of the IHC picture.
        start: Where to start.
        threads: Of SimpleITK; more than one makes sums in another order.
        iterations: Per resolution of each of the two.
        deformable: `none` stops after the affine.
        mesh: Cells of the B-spline along each side.
    """
    height, width = fixed.shape[1:]
    at = positions(start, shape=(height, width))
    on = lies_on(at, (moving.shape[1], moving.shape[2]))
    seen = look(moving[0], at).astype(np.float32)
    tissue, other = fixed[-1] > 0.2, look(moving[-1], at) > 0.2
    target, source = sitk.GetImageFromArray(fixed[0]), sitk.GetImageFromArray(seen)
    with _threads(threads):
        found = _affine(target, source, tissue & on, other & on, threads=threads, iterations=iterations)
        if deformable == "bspline":
            spline = _spline(
                target, source, tissue & on, other & on, found, threads=threads, iterations=iterations, mesh=mesh
            )
            found = sitk.CompositeTransform([found, spline])
        elif deformable == "diffeomorphic":
            whole = _demons(target, source, (tissue | other) & on, found, iterations=iterations)
            # A point goes through the last one first: the partner was seen through the affine.
            found = sitk.CompositeTransform([found, whole])
        grid = (target.GetSize(), target.GetOrigin(), target.GetSpacing(), target.GetDirection())
        field = sitk.TransformToDisplacementField(found, sitk.sitkVectorFloat64, *grid)
    shift = np.ascontiguousarray(sitk.GetArrayFromImage(field).transpose(2, 0, 1)).astype(np.float32)
    return on_top(start, shift, size=(width, height))


def _affine(
    target: sitk.Image,
    source: sitk.Image,
    tissue: Bool[np.ndarray, "h w"],
    other: Bool[np.ndarray, "h w"],
    *,
    threads: int,
    iterations: int,
) -> sitk.Transform:
    method = _by_information(tissue, other, threads=threads, shrink=[4, 2])
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=1.0, minStep=1e-3, numberOfIterations=iterations, relaxationFactor=0.6
    )
    method.SetOptimizerScalesFromPhysicalShift()
    affine = sitk.AffineTransform(2)
    affine.SetCenter([side / 2 for side in target.GetSize()])
    method.SetInitialTransform(affine, inPlace=False)
    return _alone(method.Execute(target, source))


def _spline(
    target: sitk.Image,
    source: sitk.Image,
    tissue: Bool[np.ndarray, "h w"],
    other: Bool[np.ndarray, "h w"],
    start: sitk.Transform,
    *,
    threads: int,
    iterations: int,
    mesh: int,
) -> sitk.Transform:
    method = _by_information(tissue, other, threads=threads, shrink=[2])
    method.SetMovingInitialTransform(start)
    method.SetOptimizerAsLBFGSB(numberOfIterations=iterations)
    method.SetInitialTransform(sitk.BSplineTransformInitializer(target, [mesh, mesh], order=3), inPlace=False)
    return _alone(method.Execute(target, source))


def _demons(
    target: sitk.Image, source: sitk.Image, tissue: Bool[np.ndarray, "h w"], start: sitk.Transform, *, iterations: int
) -> sitk.Transform:
    """A field without folds between the target and the source as seen through `start`, coarse to fine."""
    # What is no tissue on either picture is 0 on both: it pulls nowhere.
    inside = sitk.GetImageFromArray(tissue.astype(np.float32))
    seen = sitk.Resample(source, target, start, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    target, seen = (sitk.SmoothingRecursiveGaussian(one * inside, 1.0) for one in (target, seen))
    # Demons follow differences of intensity, and one stain is darker than the other.
    seen = sitk.HistogramMatching(seen, target, 256, 15, False)
    field: sitk.Image | None = None
    for factor in DEMONS_SHRINK:
        small = [
            sitk.Shrink(sitk.SmoothingRecursiveGaussian(one, factor / 2), [factor, factor]) for one in (target, seen)
        ]
        demons = sitk.DiffeomorphicDemonsRegistrationFilter()
        demons.SetNumberOfIterations(iterations)
        demons.SetSmoothDisplacementField(True)
        demons.SetStandardDeviations(FIELD_SIGMA_PX)
        demons.SetSmoothUpdateField(True)
        demons.SetUpdateFieldStandardDeviations(UPDATE_SIGMA_PX)
        demons.SetMaximumUpdateStepLength(2.0)
        field = demons.Execute(*small) if field is None else demons.Execute(*small, _on_grid(field, small[0]))
    assert field is not None
    return sitk.DisplacementFieldTransform(_on_grid(field, target))


def _on_grid(field: sitk.Image, like: sitk.Image) -> sitk.Image:
    return sitk.Resample(field, like, sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorFloat64)


def _by_information(
    tissue: Bool[np.ndarray, "h w"], other: Bool[np.ndarray, "h w"], *, threads: int, shrink: list[int]
) -> sitk.ImageRegistrationMethod:
    """Mutual information of tissue: that of glass with glass is large and says nothing."""
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(threads)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=BINS)
    near = cv2.dilate(other.astype(np.uint8), np.ones((2 * NEAR_PX + 1, 2 * NEAR_PX + 1), np.uint8))
    method.SetMetricFixedMask(sitk.GetImageFromArray(tissue.astype(np.uint8)))
    method.SetMetricMovingMask(sitk.GetImageFromArray(near))
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.5, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([factor / 2 for factor in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    return method


def _alone(found: sitk.Transform) -> sitk.Transform:
    # A composite of one comes back when the transform was not optimised in place.
    return found.GetNthTransform(0) if isinstance(found, sitk.CompositeTransform) else found


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """SimpleITK's default is the process's; it goes back to what it was."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(number)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
