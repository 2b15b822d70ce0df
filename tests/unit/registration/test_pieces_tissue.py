import cv2
import numpy as np
import pytest
from registration_drawing import MPP, draw_section, stain

from hepipe.geometry import Transform
from hepipe.registration.common import common_tissue, stored_pieces
from hepipe.registration.overview import read_pictures
from hepipe.registration.pieces import match_pieces, relabel
from hepipe.slides.picture import ArraySlide
from hepipe.specs.slides import TissueSpec
from hepipe.stores.arrays import read_registered, write_registered
from hepipe.stores.provenance import Provenance

HERE = Transform(np.eye(3), MPP, MPP)


@pytest.fixture(scope="module")
def slides():
    """Two pieces on the H&E, one of them with a partner; beside that on the IHC a brown control."""
    he, ihc = np.zeros((224, 448), np.float32), np.zeros((224, 448), np.float32)
    he[:, :224] = ihc[:, :224] = draw_section(5)
    he[60:160, 300:330] = 0.4
    brown = cv2.circle(np.zeros_like(ihc), (410, 110), 24, 0.9, -1)
    moving = np.where(brown[..., None] > 0, stain(brown, (0.27, 0.57, 0.78)), stain(ihc * 0.7, (0.8, 0.7, 0.4), 1))
    return (
        ArraySlide(stain(he, (0.6, 1.0, 0.5)), mpp=MPP, slide_id="case-he"),
        ArraySlide(moving, mpp=MPP, slide_id="case-ihc"),
    )


@pytest.fixture(scope="module")
def pictures(slides):
    return read_pictures(*slides, max_px=300)


@pytest.fixture(scope="module")
def pieces(pictures):
    return relabel(match_pieces(pictures), pictures, HERE)


def test_masks_hold_no_missing_piece_and_no_control(slides, pictures, pieces):
    spec = TissueSpec(mpp=MPP, min_piece_um2=500.0)
    all_of_it = common_tissue(*slides, HERE, spec)
    found = common_tissue(*slides, HERE, spec, numbered=(pieces, pictures.mpp))
    assert all_of_it.masks["he"][110, 315]
    assert all_of_it.masks["ihc"][110, 410]
    assert not found.masks["he"][:, 290:340].any()
    assert not found.masks["ihc"][:, 380:440].any()
    np.testing.assert_array_equal(found.masks["tissue"], all_of_it.masks["tissue"])
    assert found.summary["dice"] > 0.9 > all_of_it.summary["dice"]
    assert (found.masks["pieces_he"][110, 315], found.masks["pieces_ihc"][110, 410]) == (2, 2)


@pytest.mark.parametrize("turned_deg", [0, 33, 90])
def test_rows_taken_a_few_at_a_time_give_the_same_masks(slides, pictures, pieces, monkeypatch, turned_deg):
    cos, sin = np.cos(np.deg2rad(turned_deg)), np.sin(np.deg2rad(turned_deg))
    field = np.random.default_rng(0).normal(0, 6, (2, 9, 17)).astype(np.float32)
    bent = Transform(np.array([[cos, -sin, 90.0], [sin, cos, -20.0], [0, 0, 1]]), MPP, MPP, field, 32 * MPP)
    spec = TissueSpec(mpp=MPP, min_piece_um2=0.0)
    whole = common_tissue(*slides, bent, spec, numbered=(pieces, pictures.mpp))
    monkeypatch.setattr("hepipe.tissue.otsu.STRIP_PX", 7 * 448)
    found = common_tissue(*slides, bent, spec, numbered=(pieces, pictures.mpp))
    assert whole.masks["ihc"].any()
    assert found.summary == whole.summary
    for name, mask in whole.masks.items():
        np.testing.assert_array_equal(found.masks[name], mask)


class Wide(ArraySlide):
    """A slide of 100,000 x 60,000 px that knows what it was asked for, and shows a rectangle of tissue."""

    def __init__(self, mpp, mpp_from):
        rgb = np.full((60, 100, 3), 240, np.uint8)
        rgb[20:40, 30:60] = (150, 60, 140)
        super().__init__(rgb, mpp=mpp, slide_id="wide", mpp_from=mpp_from)
        self.size_px0 = (100_000, 60_000)
        self.asked = []

    def overview(self, *, max_px):
        self.asked.append(max_px)
        return self.decode(0, 0, 0, 100, 60), self.mpp * 1000


@pytest.mark.parametrize(
    ("mpp", "mpp_from", "asked"), [(1.0, "unknown", 4096), (0.25, "file", 3125), (1.0, "file", 12_500)]
)
def test_only_a_slide_of_unknown_mpp_is_looked_at_with_a_bounded_number_of_px(mpp, mpp_from, asked):
    he, ihc = Wide(mpp, mpp_from), Wide(0.25, "file")
    found = common_tissue(he, ihc, Transform(np.diag([mpp / 0.25, mpp / 0.25, 1]), mpp, 0.25), TissueSpec())
    assert (he.asked, ihc.asked) == ([asked], [3125])
    assert found.mpp == mpp * 1000
    assert found.masks["he"].any()


def test_the_summary_tells_piece_by_piece_what_was_kept(slides, pictures, pieces):
    found = common_tissue(*slides, HERE, TissueSpec(mpp=MPP), numbered=(pieces, pictures.mpp))
    rows = {row["name"]: row for row in found.summary["pieces"]}
    assert {name: row["role"] for name, row in rows.items()} == {
        "he1": "matched",
        "he2": "missing",
        "ihc1": "matched",
        "ihc2": "control",
    }
    assert rows["he1"]["kept_frac"] > 0.9
    assert rows["he2"]["kept_frac"] == rows["ihc2"]["kept_frac"] == 0
    assert rows["he2"]["area_mm2"] == pytest.approx(100 * 30 * MPP**2 / 1e6, rel=0.15)


def test_pieces_come_back_from_a_stored_registration(tmp_path, pictures, pieces):
    write_registered(
        tmp_path / "r.zarr",
        Provenance(artefact="registered", subject="case", spec={}),
        ihc_from_he=HERE,
        he_from_ihc=HERE,
        summary={"mpp": pictures.mpp, "pieces": pieces.records()},
        evidence={"pieces_he": pieces.he, "pieces_ihc": pieces.ihc},
    )
    again, mpp = stored_pieces(read_registered(tmp_path / "r.zarr"))
    assert (again.table, mpp) == (pieces.table, pictures.mpp)
    np.testing.assert_array_equal(again.ihc, pieces.ihc)


def test_a_registration_without_pieces_keeps_all_tissue(tmp_path):
    path = tmp_path / "r.zarr"
    provenance = Provenance(artefact="registered", subject="case", spec={})
    write_registered(path, provenance, ihc_from_he=HERE, he_from_ihc=HERE, summary={"mpp": 4.0})
    assert stored_pieces(read_registered(path)) is None
