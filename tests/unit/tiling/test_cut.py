import hashlib

import numpy as np
import pytest

from hepipe.errors import PixelError, SlideError
from hepipe.geometry import Transform, identity, translation
from hepipe.slides.picture import ArraySlide
from hepipe.specs.tiling import StoreSpec, TilingSpec
from hepipe.stores.arrays import TissueMasks, content_digest
from hepipe.stores.cases import CheckedCase
from hepipe.stores.provenance import Provenance
from hepipe.stores.shards import sealed
from hepipe.stores.tiles import TileStore, TileWriter
from hepipe.tiling.cut import ARRAYS, cut_case, cut_key, finish_tile, untrusted_fracs
from hepipe.tiling.keep import keep_cells
from hepipe.tiling.sample import WINDOW_PX, tissue_pixels

SPEC = TilingSpec(mpp=1.0, tile_px=32, min_tissue_frac=0.5)
MADE = Provenance(artefact="tiles", subject="c1")
CASE = CheckedCase(case_id="c1", patient_id="p1", marker="HER2", her2_score="2+", section="restained", provenance=MADE)


@pytest.fixture
def slides():
    rng = np.random.default_rng(0)
    return [
        ArraySlide(rng.integers(0, 255, (100, 130, 3), dtype=np.uint8), mpp=1.0, slide_id=f"c1-{stain}")
        for stain in ("he", "ihc")
    ]


def masked(where):
    tissue = np.zeros((25, 33), bool)
    tissue[where] = True
    return TissueMasks(Provenance(artefact="tissue", subject="c1"), tissue, 4.0)


def cut(slides, tmp_path, transform, *, cells, workers=1, codec="greendelta"):
    storing = StoreSpec(codec=codec, tiles_per_shard=3)
    with TileWriter(tmp_path / f"{workers}.zarr", MADE, mpp=1.0, tile_px=32, arrays=ARRAYS, spec=storing) as store:
        rows = cut_case(
            *slides,
            case=CASE,
            ihc_from_he=transform,
            cells=cells,
            spec=SPEC,
            measures=[lambda he, ihc, mpp: {"he_mean": float(he.mean())}],
            dab_mask=lambda ihc, mpp, measurements: ihc[..., 2] < 100,
            store=store,
            workers=workers,
        )
        store.finish()
    return rows, TileStore(tmp_path / f"{workers}.zarr")


class Damaged(ArraySlide):
    """A slide some of whose px do not decode, or whose reading is stopped."""

    def __init__(self, slide, *, broken=(), stop_at=None):
        super().__init__(slide._array, mpp=slide.mpp, slide_id=slide.slide_id)
        self._broken, self._stop_at = broken, stop_at

    def decode(self, level, x, y, width, height):
        if (x // 32, y // 32) == self._stop_at:
            raise KeyboardInterrupt
        if (x // 32, y // 32) in self._broken:
            raise PixelError(self.slide_id, "some pixels do not decode")
        return super().decode(level, x, y, width, height)


def test_only_cells_with_tissue_are_kept_in_reading_order(slides):
    kept = keep_cells(slides[0], masked(np.s_[8:, 8:24]), SPEC, case_id="c1")
    assert [(cell.column, cell.row) for cell, _ in kept.cells] == [(1, 1), (2, 1), (1, 2), (2, 2)]
    assert kept.most == 1.0


def test_a_border_tile_is_filled_with_white_and_says_so(slides, tmp_path):
    cells = keep_cells(
        slides[0], masked(np.s_[:, :]), SPEC.model_copy(update={"min_tissue_frac": 0.0}), case_id="c1"
    ).cells
    cells = [(cell, share) for cell, share in cells if cell.column == 4]
    rows, store = cut(slides, tmp_path, identity(fixed_mpp=1.0, moving_mpp=1.0), cells=cells)
    assert rows[0]["measurements"]["outside_frac_he"] == pytest.approx(30 / 32)
    assert (store.read("he", 0)[:, 2:] == 255).all()
    assert rows[0]["measurements"]["outside_frac_ihc"] == pytest.approx(30 / 32, abs=1 / 32)


def test_the_ihc_is_read_through_the_transform(slides, tmp_path):
    cells = keep_cells(slides[0], masked(np.s_[8:16, 8:16]), SPEC, case_id="c1").cells
    moved = Transform(translation(5.0, -3.0), 1.0, 1.0)
    _, store = cut(slides, tmp_path, moved, cells=cells)
    expected = slides[1]._array[32 - 3 : 64 - 3, 32 + 5 : 64 + 5]
    np.testing.assert_array_equal(store.read("ihc", 0), expected)
    np.testing.assert_array_equal(store.read_mask("dab_mask", 0), expected[..., 2] < 100)


def test_workers_change_neither_rows_nor_their_order(slides, tmp_path):
    cells = keep_cells(slides[0], masked(np.s_[:, :]), SPEC, case_id="c1").cells
    transform = identity(fixed_mpp=1.0, moving_mpp=1.0)
    one, _ = cut(slides, tmp_path, transform, cells=cells, workers=1)
    three, store = cut(slides, tmp_path, transform, cells=cells, workers=3)
    assert one == three
    assert [row["row_in_store"] for row in three] == list(range(len(store)))


@pytest.mark.parametrize("workers", [1, 3])
def test_tiles_that_do_not_decode_are_left_out_with_their_reason(slides, tmp_path, workers):
    cells = keep_cells(slides[0], masked(np.s_[:, :]), SPEC, case_id="c1").cells
    whole, _ = cut(slides, tmp_path / "whole", identity(fixed_mpp=1.0, moving_mpp=1.0), cells=cells)
    damaged = [Damaged(slides[0], broken={(1, 0), (3, 1)}), slides[1]]
    rows, store = cut(damaged, tmp_path, identity(fixed_mpp=1.0, moving_mpp=1.0), cells=cells, workers=workers)
    assert [row["tile_id"] for row in rows] == [row["tile_id"] for row in whole]
    lost = [row for row in rows if row["problem"]]
    assert [(row["tile_id"], row["row_in_store"], row["he_sha256"]) for row in lost] == [
        ("c1/1-0", None, None),
        ("c1/3-1", None, None),
    ]
    assert lost[0]["problem"] == "slide c1-he: some pixels do not decode"
    assert len(store) == len(rows) - 2
    hashes = {row["tile_id"]: row["he_sha256"] for row in whole}
    for row in rows:
        if not row["problem"]:
            assert row["he_sha256"] == hashes[row["tile_id"]] == content_digest(store.read("he", row["row_in_store"]))


def test_a_case_that_was_stopped_goes_on_and_ends_as_if_it_had_not(slides, tmp_path):
    cells = keep_cells(slides[0], masked(np.s_[:, :]), SPEC, case_id="c1").cells
    transform = identity(fixed_mpp=1.0, moving_mpp=1.0)
    broken = {(1, 0), (2, 1)}
    straight, _ = cut([Damaged(slides[0], broken=broken), slides[1]], tmp_path / "a", transform, cells=cells)
    with pytest.raises(KeyboardInterrupt):
        cut([Damaged(slides[0], broken=broken, stop_at=(1, 2)), slides[1]], tmp_path / "b", transform, cells=cells)
    # What is on the disk is not read again.
    again = Damaged(slides[0], broken={*broken, (0, 0)})
    resumed, _ = cut([again, slides[1]], tmp_path / "b", transform, cells=cells)
    assert resumed == straight
    files = [
        {
            str(file.relative_to(tmp_path / one)): file.read_bytes()
            for file in (tmp_path / one).rglob("*.*/**/*")
            if file.is_file()
        }
        for one in "ab"
    ]
    assert files[0] == files[1]
    assert files[0]


def test_hashes_are_of_the_pixels_or_of_the_bytes_that_hold_others(slides, tmp_path):
    cells = keep_cells(slides[0], masked(np.s_[8:16, 8:16]), SPEC, case_id="c1").cells
    transform = identity(fixed_mpp=1.0, moving_mpp=1.0)
    made = {name: cut(slides, tmp_path / name, transform, cells=cells, codec=name) for name in ("jxl", "zstd", "jpeg")}
    hashes = {name: rows[0]["he_sha256"] for name, (rows, _) in made.items()}
    assert hashes["jxl"] == hashes["zstd"] == content_digest(made["zstd"][1].read("he", 0))
    assert hashes["jpeg"] == hashlib.sha256(sealed(made["jpeg"][1].chunk("he", 0))).hexdigest()


@pytest.mark.parametrize("what", ["cells", "trust", "colours"])
def test_a_case_is_not_gone_on_with_when_what_it_was_cut_from_has_changed(slides, what):
    cells = keep_cells(slides[0], masked(np.s_[8:, 8:24]), SPEC, case_id="c1").cells
    doubts = [0.0] * len(cells)
    key = cut_key(CASE, cells, doubts)
    assert key == cut_key(CASE.model_copy(), list(cells), list(doubts))
    if what == "cells":
        # As many as before, elsewhere: as of another outline.
        cells = keep_cells(slides[0], masked(np.s_[:16, 8:24]), SPEC, case_id="c1").cells
        assert len(cells) == len(doubts)
    changed = CASE.provenance.model_copy(update={"spec": {"icc": "srgb"}})
    case = CASE.model_copy(update={"provenance": changed}) if what == "colours" else CASE
    assert cut_key(case, cells, [0.5, *doubts[1:]] if what == "trust" else doubts) != key


def test_a_slide_of_which_no_tile_decodes_is_named(slides, tmp_path):
    cells = keep_cells(slides[0], masked(np.s_[8:16, 8:16]), SPEC, case_id="c1").cells
    damaged = [slides[0], Damaged(slides[1], broken={(x, y) for x in range(5) for y in range(4)})]
    with pytest.raises(SlideError, match=r"none of \d+ tiles can be read: slide c1-ihc: some pixels"):
        cut(damaged, tmp_path, identity(fixed_mpp=1.0, moving_mpp=1.0), cells=cells)


def test_two_measurements_may_not_share_a_name():
    tile = np.zeros((8, 8, 3), np.uint8)
    same = lambda he, ihc, mpp: {"x": 1.0}  # noqa: E731
    with pytest.raises(AssertionError, match="x"):
        finish_tile(tile, tile, 1.0, [same, same], lambda ihc, mpp, measurements: ihc[..., 0] > 0, {})


def test_windows_of_the_ihc_follow_the_transform():
    array = np.full((400, 400, 3), 255, np.uint8)
    array[140:280, 160:300] = 90
    slide = ArraySlide(array, mpp=1.0, slide_id="c1-ihc")
    tissue = np.zeros((16, 16), bool)
    tissue[:8, :8] = True
    masks = TissueMasks(Provenance(artefact="tissue", subject="c1"), tissue, 16.0)
    moved = Transform(translation(166.0, 146.0), 1.0, 1.0)
    pixels = tissue_pixels(slide, masks, count=4, fixed_mpp=1.0, moved=moved)
    assert pixels.shape == (WINDOW_PX**2, 3)
    assert (pixels == 90).all()


def test_a_tile_says_how_much_of_its_tissue_no_window_supports(slides, tmp_path):
    tissue = masked(np.s_[:, :])
    cells = keep_cells(slides[0], tissue, SPEC, case_id="c1").cells
    trust = np.ones((7, 9), np.uint8)  # of 16 µm; tiles are 32 µm
    trust[0:2, 2:4] = [[0, 0], [0, 1]]
    shares = dict(zip([(c.column, c.row) for c, _ in cells], untrusted_fracs(
        cells, trust, tissue, grid_um=16.0, he_mpp=1.0), strict=True))  # fmt: skip
    assert shares[1, 0] == pytest.approx(0.75)
    assert shares[0, 0] == shares[2, 0] == 0.0
    # Beyond the map nothing supports it; glass does not count.
    assert untrusted_fracs(cells, trust[:2], tissue, grid_um=16.0, he_mpp=1.0)[-1] == 1.0
    rows, _ = cut(slides, tmp_path, identity(fixed_mpp=1.0, moving_mpp=1.0), cells=cells)
    assert "untrusted_frac" not in rows[0]["measurements"]
    half = masked(np.s_[:4, :])
    cells = keep_cells(slides[0], half, SPEC.model_copy(update={"min_tissue_frac": 0.1}), case_id="c1").cells
    trust[:1] = 0
    trust[1:] = 1
    assert untrusted_fracs(cells, trust, half, grid_um=16.0, he_mpp=1.0)[0] == pytest.approx(1.0)
