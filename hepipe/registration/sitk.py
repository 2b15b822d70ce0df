"""Affine and B-spline by mutual information of SimpleITK: no other extra, and a second opinion."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32

from hepipe.geometry import Transform
from hepipe.registration.overview import lies_on, look, on_top, positions

BINS = 32
SEED = 121
"""Of the metric's samples; any fixed number will do."""


def refine_simpleitk(
    fixed: Float32[np.ndarray, "c h w"],
    moving: Float32[np.ndarray, "c mh mw"],
    start: Transform,
    *,
    threads: int,
    iterations: int,
    mesh: int = 6,
) -> Transform:
    """An affine and then a B-spline of `mesh` by `mesh` cells on top of `start`, in px of the pictures given.

    Args:
        fixed: Features of the H&E picture; the first is matched, the last masks.
        moving: The same of the IHC picture.
        start: Where to start.
        threads: Of SimpleITK; more than one makes sums in another order.
        iterations: Per resolution of each of the two.
        mesh: Cells of the B-spline along each side.
    """
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    height, width = fixed.shape[1:]
    at = positions(start, shape=(height, width))
    target = sitk.GetImageFromArray(fixed[0])
    source = sitk.GetImageFromArray(look(moving[0], at).astype(np.float32))
    # The metric looks at tissue only: mutual information of glass with glass is large and says nothing.
    mask = sitk.GetImageFromArray(
        ((fixed[-1] > 0.2) & lies_on(at, (moving.shape[1], moving.shape[2]))).astype(np.uint8)
    )
    affine = sitk.AffineTransform(2)
    affine.SetCenter((width / 2, height / 2))
    affine = _optimize(target, source, mask, affine, threads=threads, iterations=iterations, shrink=[4, 2])
    spline = sitk.BSplineTransformInitializer(target, [mesh, mesh], order=3)
    held = sitk.CompositeTransform([affine])
    spline = _optimize(
        target, source, mask, spline, threads=threads, iterations=iterations, shrink=[2], moving_start=held
    )
    both = sitk.CompositeTransform([affine, spline])
    field = sitk.GetArrayFromImage(
        sitk.TransformToDisplacementField(
            both,
            sitk.sitkVectorFloat64,
            target.GetSize(),
            target.GetOrigin(),
            target.GetSpacing(),
            target.GetDirection(),
        )
    )
    shift = np.ascontiguousarray(field.transpose(2, 0, 1)).astype(np.float32)
    return on_top(start, shift, size=(width, height))


def _optimize(
    target: sitk.Image,
    source: sitk.Image,
    mask: sitk.Image,
    initial: sitk.Transform,
    *,
    threads: int,
    iterations: int,
    shrink: list[int],
    moving_start: sitk.Transform | None = None,
) -> sitk.Transform:
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(threads)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=BINS)
    method.SetMetricFixedMask(mask)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(0.5, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    if moving_start is None:
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0, minStep=1e-3, numberOfIterations=iterations, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
    else:
        method.SetMovingInitialTransform(moving_start)
        method.SetOptimizerAsLBFGSB(numberOfIterations=iterations)
    method.SetShrinkFactorsPerLevel(shrink)
    method.SetSmoothingSigmasPerLevel([factor / 2 for factor in shrink])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(initial, inPlace=False)
    found = method.Execute(target, source)
    # A composite of one comes back when the transform was not optimised in place.
    return found.GetNthTransform(0) if isinstance(found, sitk.CompositeTransform) else found
