import csv
import json

import cv2
import numpy as np
import openslide
import pytest
import tiffslide
import zarr

from hepipe.geometry import Transform
from hepipe.specs.synth import SynthSpec
from hepipe.stores.arrays import open_group
from hepipe.synth.architecture import draw_architecture
from hepipe.synth.case import draw_case, write_case
from hepipe.synth.cells import place_cells
from hepipe.synth.plan import LABELS, plan_case

SPEC = SynthSpec(side_um=400)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """The first four cases, one of each score, small."""
    root = tmp_path_factory.mktemp("cohort")
    return {number: (root / str(number), write_case(SPEC, number, root / str(number))) for number in range(1, 5)}


@pytest.fixture(scope="module")
def clean():
    """The same four cases in memory, without artifacts."""
    return {n: draw_case(plan_case(SynthSpec(side_um=400, artifacts=False), n)) for n in range(1, 5)}


def truth_transform(folder):
    part = zarr.open_group(folder / "truth.zarr", mode="r")["ihc_from_he"]
    return Transform(
        np.array(part.attrs["affine"]),
        part.attrs["fixed_mpp"],
        part.attrs["moving_mpp"],
        np.asarray(part["field_um"][:]),
        part.attrs["grid_um"],
    )


@pytest.mark.parametrize("stain", ["he", "ihc"])
def test_openslide_and_tiffslide_read_the_same_levels_and_half_a_micrometre(cohort, stain):
    folder, drawn = cohort[1]
    height, width = getattr(drawn, stain).shape[:2]
    first = openslide.OpenSlide(folder / f"{stain}.tif")
    second = tiffslide.TiffSlide(folder / f"{stain}.tif")
    assert first.level_dimensions == second.level_dimensions
    assert first.level_dimensions[0] == (width, height)
    assert len(first.level_dimensions) >= 3
    assert float(first.properties["openslide.mpp-x"]) == pytest.approx(0.5)
    assert float(second.properties["tiffslide.mpp-x"]) == pytest.approx(0.5)
    one = np.asarray(first.read_region((100, 100), 0, (200, 200)).convert("RGB")).astype(int)
    two = np.asarray(second.read_region((100, 100), 0, (200, 200)).convert("RGB")).astype(int)
    assert np.abs(one - two).mean() < 2
    assert np.abs(one - getattr(drawn, stain)[100:300, 100:300]).mean() < 8


def test_a_case_drawn_again_has_the_same_bytes(cohort, tmp_path):
    folder, _ = cohort[3]
    write_case(SynthSpec(side_um=400, patients=50), 3, tmp_path / "again")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes(), path.name
    assert {path.name for path in folder.iterdir()} == {"he.tif", "ihc.tif", "landmarks.csv", "truth.zarr"}


def test_drawing_over_a_case_keeps_what_else_lies_there(cohort):
    folder, _ = cohort[1]
    (folder / "note.txt").write_text("mine")
    (folder / "truth.zarr" / "old").write_text("gone")
    write_case(SPEC, 1, folder)
    assert (folder / "note.txt").read_text() == "mine"
    assert not (folder / "truth.zarr" / "old").exists()


def test_landmarks_follow_the_true_transform(cohort):
    folder, _ = cohort[2]
    with (folder / "landmarks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["x_he", "y_he", "x_ihc", "y_ihc"]
    assert len(rows) == 40
    he = np.array([[float(row["x_he"]), float(row["y_he"])] for row in rows])
    ihc = np.array([[float(row["x_ihc"]), float(row["y_ihc"])] for row in rows])
    assert np.abs(truth_transform(folder)(he) - ihc).max() < 0.002
    assert he.std(axis=0).min() > 60


@pytest.mark.parametrize("number", [1, 2, 4])
def test_nuclei_lie_in_both_scans_where_the_truth_puts_them(clean, number):
    """The mean picture around all kept nuclei is centred to well below half a px."""
    drawn = clean[number]
    cells = drawn.section.cells
    some = cells.only(cells.kept & cells.is_kind("fibroblast", "lymphocyte"))
    he = np.stack([some.x, some.y], axis=1).astype(float)
    reach = np.arange(-6, 7)
    for pixels, points in ((drawn.he, he), (drawn.ihc, drawn.ihc_from_he(he))):
        dark = 255 - pixels[..., 0].astype(np.float32)
        x = (points[:, 0, None, None] - 0.5 + reach[None, None, :]).astype(np.float32)
        y = (points[:, 1, None, None] - 0.5 + reach[None, :, None]).astype(np.float32)
        around = cv2.remap(
            dark, np.broadcast_to(x, (*y.shape[:2], 13)).reshape(-1, 13).copy(),
            np.broadcast_to(y, (*y.shape[:2], 13)).reshape(-1, 13).copy(), cv2.INTER_LINEAR,
        ).reshape(-1, 13, 13).mean(axis=0)  # fmt: skip
        weight = np.clip(around - np.median(around), 0, None)
        assert abs((weight.sum(axis=0) * reach).sum() / weight.sum()) < 0.4
        assert abs((weight.sum(axis=1) * reach).sum() / weight.sum()) < 0.4


def test_brown_grows_with_the_score(clean):
    brown, positive = [], []
    for drawn in clean.values():
        pixels = drawn.ihc.astype(float)
        brown.append(np.clip(pixels[..., 0] - pixels[..., 2] - 15, 0, None).mean())
        positive.append(drawn.dab.mean())
    # case 3 carries a control tissue as strongly stained as a 3+
    assert brown[0] < 0.3 * brown[1]
    assert brown[1] < brown[2] < brown[3]
    assert positive[0] < positive[1] < positive[2] < positive[3]
    assert positive[0] < 0.002


def test_the_truth_of_dab_is_brown_in_the_scan_and_the_rest_is_not(cohort):
    _, drawn = cohort[4]
    rows, columns = np.nonzero(drawn.dab[8:-8, 8:-8])
    points = (np.stack([columns, rows], axis=1) + 8.5) * 2
    places = np.floor(drawn.ihc_from_he(points)).astype(int)
    pixels = drawn.ihc[places[:, 1], places[:, 0]].astype(float)
    assert (pixels[:, 0] - pixels[:, 2]).mean() > 25
    elsewhere = drawn.ihc[:40, :40].astype(float)
    assert abs((elsewhere[..., 0] - elsewhere[..., 2]).mean()) < 10


def test_the_truth_says_what_was_planted_and_where(cohort):
    found = 0
    for folder, drawn in cohort.values():
        group, provenance = open_group(folder / "truth.zarr", "truth")
        assert "path" not in json.dumps(provenance.spec)
        for record in group.attrs["artifacts"]:
            labels = group[f"artifacts_{record['stain']}"][:]
            pixels = getattr(drawn, record["stain"])
            assert labels.shape == tuple(-(-side // 8) for side in pixels.shape[:2])
            assert record["label"] == LABELS[record["kind"]]
            assert (labels == record["label"]).sum() * 16 == record["area_um2"] > 0
            outlined = next(p for p in drawn.placed[record["stain"]] if p.planted.kind == record["kind"])
            assert record["area_um2"] == pytest.approx(outlined.mask.sum() * 0.25, rel=0.5)
            found += 1
        assert group["nuclei/x_px0"].shape == (len(drawn.section.cells),)
    assert found == 12


def test_only_the_ihc_has_the_control_tissue(clean):
    drawn = clean[3]
    right = drawn.ihc[:, -520:].astype(float)
    assert np.clip(right[..., 0] - right[..., 2] - 30, 0, None).mean() > 0.3
    cells = drawn.section.cells
    he = np.stack([cells.x, cells.y], axis=1).astype(float)
    assert drawn.ihc_from_he(he)[:, 0].max() < drawn.ihc.shape[1] - 520


def test_a_consecutive_section_shows_fewer_of_the_same_cells(clean):
    assert clean[1].section.cells.kept.mean() > 0.9
    plan = plan_case(SynthSpec(side_um=400, section="consecutive"), 1)
    assert place_cells(plan, draw_architecture(plan)).kept.mean() < 0.65
