"""The pairs that registration is measured on: their truth is right, and equal arguments give equal bytes."""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import zarr

from hepipe.geometry import Transform, translation

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from making.pyramid import StreamedPyramid
from making.truth import MAX_STRAIN, Inverse, draw_warp, turn

SIDE_PX = 1024


def _load_cases():
    # By path: another folder of tests has a module of this name.
    place = Path(__file__).parents[3] / "benchmarks" / "cases.py"
    spec = importlib.util.spec_from_file_location("benchmark_cases", place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


cases = _load_cases()


def _options(kind: str, folder: Path, **more) -> Namespace:
    options = cases.parser().parse_args([kind, str(folder), "--seed", "5", "--side-px", str(SIDE_PX)])
    return Namespace(**{**vars(options), **more})


def _truth(folder: Path) -> Transform:
    part = zarr.open_group(folder / "truth.zarr", mode="r")["ihc_from_he"]
    return Transform(
        affine=np.array(part.attrs["affine"], float),
        fixed_mpp=float(part.attrs["fixed_mpp"]),
        moving_mpp=float(part.attrs["moving_mpp"]),
        field_um=part["field_um"][:],
        grid_um=float(part.attrs["grid_um"]),
    )


def _whole(path: Path) -> np.ndarray:
    with openslide.OpenSlide(path) as slide:
        return np.array(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB"))


def _dark(rgb: np.ndarray) -> np.ndarray:
    """What haematoxylin absorbs most, nuclei brought out."""
    od = -np.log10((rgb[..., 0].astype(np.float32) + 1) / 256)
    return cv2.GaussianBlur(od, (0, 0), 1.5) - cv2.GaussianBlur(od, (0, 0), 12)


def _pair(folder: Path, truth: Transform) -> tuple[np.ndarray, np.ndarray]:
    """The middle of the H&E and the IHC read at the truth's places."""
    he, ihc = _whole(folder / "he.tif"), _whole(folder / "ihc.tif")
    rows, columns = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    aim = truth(np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) - 0.5
    map_x, map_y = (aim[:, k].reshape(SIDE_PX, SIDE_PX).astype(np.float32) for k in (0, 1))
    middle = slice(SIDE_PX // 4, -SIDE_PX // 4)
    return _dark(he)[middle, middle], cv2.remap(_dark(ihc), map_x, map_y, cv2.INTER_CUBIC)[middle, middle]


def _shift_px(folder: Path, truth: Transform) -> np.ndarray:
    """How far the IHC still lies from the H&E."""
    he, ihc = _pair(folder, truth)
    reach = 6
    scores = cv2.matchTemplate(he, ihc[reach:-reach, reach:-reach], cv2.TM_CCOEFF_NORMED)
    y, x = np.unravel_index(scores[1:-1, 1:-1].argmax(), np.subtract(scores.shape, 2))
    lines = (scores[y + 1, x : x + 3], scores[y : y + 3, x + 1])
    fine = [0.5 * (before - after) / (before - 2 * here + after) for before, here, after in lines]
    return np.array([x, y]) + 1 + fine - reach


@pytest.fixture(scope="module")
def restained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restained")
    cases.make(_options("restained", folder))
    return folder


def test_the_ihc_lies_where_the_truth_says(restained: Path) -> None:
    truth = _truth(restained)
    assert np.corrcoef(*(part.ravel() for part in _pair(restained, truth)))[0, 1] > 0.7
    assert np.abs(_shift_px(restained, truth)).max() * 0.25 < 0.03
    off = replace(truth, affine=translation(3.0, 0.0) @ truth.affine)
    assert np.linalg.norm(_shift_px(restained, off)) == pytest.approx(3.0, abs=0.3)


def test_equal_arguments_give_equal_bytes(restained: Path, tmp_path: Path) -> None:
    cases.make(_options("restained", tmp_path))
    for name in ("he.tif", "ihc.tif", "facts.json", "truth.zarr/tissue/zarr.json"):
        assert (tmp_path / name).read_bytes() == (restained / name).read_bytes()
    assert np.array_equal(_truth(tmp_path).field_um, _truth(restained).field_um)


def test_every_level_opens_at_half_the_size_and_the_stated_resolution(restained: Path) -> None:
    for name in ("he", "ihc"):
        with openslide.OpenSlide(restained / f"{name}.tif") as slide:
            assert slide.properties["openslide.vendor"] == "generic-tiff"
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-6)
            for level, (width, height) in enumerate(slide.level_dimensions):
                assert (width, height) == tuple(side >> level for side in slide.dimensions)
                assert slide.read_region((0, 0), level, (width, height)).size == (width, height)


def test_the_facts_and_the_tissue_map_are_of_the_slides(restained: Path) -> None:
    facts = json.loads((restained / "facts.json").read_text())
    group = zarr.open_group(restained / "truth.zarr", mode="r")
    tissue = group["tissue"][:]
    assert facts["tissue_mm2"] == pytest.approx((tissue > 0).sum() * group.attrs["tissue_mpp"] ** 2 / 1e6, abs=1e-3)
    assert (tissue == 2).sum() / (tissue > 0).sum() == pytest.approx(0.1, abs=0.02)
    with openslide.OpenSlide(restained / "he.tif") as slide:
        small = np.array(slide.get_thumbnail(tissue.shape[::-1]).convert("L").resize(tissue.shape[::-1]))
    assert np.median(small[tissue > 0]) < 225 < np.percentile(small[tissue == 0], 25)


def test_a_neighbouring_section_has_the_shapes_and_other_nuclei(tmp_path: Path) -> None:
    cases.make(_options("consecutive", tmp_path))
    assert np.corrcoef(*(part.ravel() for part in _pair(tmp_path, _truth(tmp_path))))[0, 1] < 0.3
    group = zarr.open_group(tmp_path / "truth.zarr", mode="r")
    rows, columns = np.nonzero(group["tissue"][:] == 1)
    aim = _truth(tmp_path)((np.stack([columns, rows], axis=1) + 0.5) * group.attrs["tissue_mpp"] / 0.25)
    ihc = cv2.GaussianBlur(_whole(tmp_path / "ihc.tif"), (0, 0), 20)
    shown = ihc[aim[:, 1].astype(int), aim[:, 0].astype(int)].min(axis=1)
    assert (shown < 240).mean() > 0.9
    assert (ihc.min(axis=2) < 240).mean() < 0.6


def test_the_inverse_undoes_the_stored_warp() -> None:
    field = draw_warp(np.random.default_rng(3), (2000.0, 1500.0), grid_um=8.0, peak_um=120.0)
    assert np.hypot(*field).max() <= 120.001
    assert max(np.abs(np.diff(field, axis=axis)).max() / 8 for axis in (1, 2)) <= MAX_STRAIN + 1e-4
    truth = Transform(turn(130.0, 1.01, 0.99, 0.01), 0.25, 0.25, field, 8.0)
    inverse = Inverse(truth)
    he = np.random.default_rng(4).uniform((0, 0), (8000, 6000), (500, 2))
    assert np.abs(inverse.points(truth(he)) - he).max() < 1e-3
    corner = np.floor(truth(np.array([[4000.0, 3000.0]]))[0]).astype(int)
    map_x, map_y = inverse.grid(int(corner[0]), int(corner[1]), 64)
    exact = inverse.points(corner + np.array([[0.5, 0.5], [10.5, 0.5], [63.5, 63.5], [5.5, 40.5]]))
    got = np.array([[map_x[row, column], map_y[row, column]] for column, row in ((0, 0), (10, 0), (63, 63), (5, 40))])
    assert np.abs(got - exact).max() < 0.01


def test_a_streamed_pyramid_holds_what_was_drawn_and_shares_its_glass(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    picture = cv2.resize(rng.integers(90, 170, (24, 24, 3), np.uint8), (1024, 1024), interpolation=cv2.INTER_CUBIC)
    glass = [np.full((256, 256, 3), 240, np.uint8)] * 3
    path = tmp_path / "p.tif"
    with StreamedPyramid(path, (8192, 4096), mpp=0.5, quality=95, glass=glass) as pyramid:
        pyramid.fill(lambda x, y, side: picture if (x, y) == (3072, 1024) else None)
    with openslide.OpenSlide(path) as slide:
        shown = np.array(slide.read_region((3072, 1024), 0, (1024, 1024)).convert("RGB")).astype(int)
        assert np.abs(shown - picture).mean() < 4
        quarter = np.array(slide.read_region((3072, 1024), 2, (256, 256)).convert("RGB")).astype(int)
        assert np.abs(quarter - cv2.resize(picture, (256, 256), interpolation=cv2.INTER_AREA)).mean() < 4
        around = np.array(slide.read_region((0, 0), 5, slide.level_dimensions[5]).convert("RGB")).astype(int)
        assert abs(int(np.median(around)) - 240) <= 1
    alone = tmp_path / "alone.tif"
    with StreamedPyramid(alone, (1024, 1024), mpp=0.5, quality=95, glass=glass) as pyramid:
        pyramid.fill(lambda x, y, side: picture)
    assert path.stat().st_size < alone.stat().st_size + 50_000


def test_a_real_case_needs_a_slide_and_its_stain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["cases.py", "real", str(tmp_path)])
    with pytest.raises(SystemExit, match="--texture"):
        cases.main()
