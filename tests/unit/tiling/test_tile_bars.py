"""The arithmetic behind the table of the bars of tiles; nothing here is timed."""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hepipe.slides.picture import ArraySlide
from hepipe.specs.tiling import TilingSpec


@pytest.fixture(autouse=True)
def _benchmarks_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))


def cut(cpu_s, wall_s=1.0, *, tiles=100, others=0.0):
    from bars.child import Ran
    from tilebars.cutting import Cut

    return Cut(Ran(0, cpu_s, wall_s, 50.0, ""), tiles, 1000, others)


def test_a_set_s_hours_and_bytes_are_those_of_its_pairs_and_slides():
    from tilebars.scale import Rates, lines, project

    rates = Rates({"direct": 0.5, "openslide": 2.5}, 0.1, {"raw": 0.4}, {"raw": 6e6}, 36.0, 48)
    found = project(rates, "raw", slides=10, pairs=3600, curated=1000)
    assert found.core_h == {"direct": pytest.approx(1.0 + 0.1), "openslide": pytest.approx(3.0 + 0.1)}
    assert (found.size, found.curated) == (pytest.approx(21.6e9), pytest.approx(6e9))
    head, rule, row = lines(rates)
    assert head.count("|") == rule.count("|") == row.count("|")
    assert "| 217 GB | 6.00 |" in row


def test_the_larger_share_of_a_rival_s_time_counts_and_leaving_tissue_out_is_no_gain():
    from tilebars.cutting import against

    theirs = cut(10.0)
    assert against(cut(5.4), theirs)[2]
    assert not against(cut(5.4, tiles=95), theirs)[2]
    assert not against(cut(4.0, tiles=80), theirs)[2]
    assert "per tile 0.57" in against(cut(5.4, tiles=95), theirs)[0]


def test_a_gain_by_threads_is_that_of_quiet_tries_alone():
    from tilebars.cutting import threads

    quiet, busy = (cut(2.0, 2.0), cut(2.2, 1.2)), (cut(2.0, 9.0, others=1.5), cut(2.2, 1.0))
    text, _, reached = threads([busy, quiet, busy], cores=2)
    assert reached
    assert "wall 1.67" in text
    text, _, reached = threads([busy, busy], cores=2)
    assert reached is None
    assert "not measured (others used 1.5 cores" in text
    assert threads([(quiet[0], cut(2.4, 1.0))], cores=2)[2] is False
    assert threads([quiet], cores=1)[2] is None


def test_what_others_used_leaves_our_own_seconds_out():
    from tilebars.load import Busy, others

    ran = cut(3.0).ran
    assert others(Busy(10.0, 0.0), Busy(18.0, 4.0), ran) == pytest.approx(1.25)
    assert others(Busy(10.0, 0.0), Busy(12.9, 4.0), ran) == 0.0


def test_a_failed_child_has_said_nothing():
    from tilebars.rivals import said

    ran = replace(cut(1.0).ran, last='{"tiles": 3}')
    assert said(ran) == {"tiles": 3}
    assert said(replace(ran, status=1)) == {}


def test_a_rival_without_an_interpreter_says_so():
    from tilebars.rivals import rivals_of

    found = rivals_of([f"vips={Path(sys.prefix) / 'nowhere'}"])
    assert not any(one.works for one in found.values())
    assert "no such interpreter" in found["vips"].about
    assert "no interpreter given" in found["hs2p"].about
    with pytest.raises(SystemExit, match="NAME one of hs2p, vips"):
        rivals_of(["valis=python"])


def test_the_share_of_cells_with_the_most_tissue_is_kept_in_reading_order():
    from tilebars.ours import kept_cells

    picture = np.full((1200, 1600, 3), 240, np.uint8)
    cv2.rectangle(picture, (800, 800), (1599, 1199), (180, 90, 160), -1)
    slide = ArraySlide(picture, mpp=1.0, slide_id="bar-he")
    spec = TilingSpec(mpp=1.0, tile_px=400, min_tissue_frac=0.5)
    places = [(cell.column, cell.row) for cell, _ in kept_cells(slide, spec, share=0.25)]
    assert len(places) == 3
    assert {(2, 2), (3, 2)} < set(places)
    assert places == sorted(places, key=lambda place: place[::-1])
    assert [(cell.column, cell.row) for cell, _ in kept_cells(slide, spec, share=None)] == [(2, 2), (3, 2)]


def test_both_programs_warp_by_one_transform(tmp_path):
    from tilebars.ours import transform_of
    from tilebars.warping import GRID_PX, REACH_PX, write_transform

    write_transform(tmp_path / "t.npz", (8192, 6144))
    ours = transform_of(tmp_path / "t.npz", 0.25)
    given = np.load(tmp_path / "t.npz")
    # Nodes, in the middle of their cells: what libvips' resizing takes them for too.
    columns, rows = np.meshgrid(np.arange(8), np.arange(6))
    points = (np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5) * GRID_PX
    straight = points @ given["affine"][:, :2].T + given["affine"][:, 2]
    np.testing.assert_allclose(ours(points), straight + given["field"][rows.ravel(), columns.ravel()], atol=1e-3)
    assert np.abs(given["field"]).max() == pytest.approx(REACH_PX)
