"""The review page: what stands first, what it says to do, and that it needs nothing but itself."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from hepipe.errors import StoreError
from hepipe.report import review_page as module
from hepipe.report.review_page import numbers, write_review

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OVERLAYS = ("he", "ihc", "before", "after", "warped", "edges", "deformation", "detail1_he", "detail1_warped")


@pytest.fixture
def dataset(tmp_path):
    """A factory of picture folders as `picture_case` leaves them."""
    folder = tmp_path / "results" / "set"

    def case(case_id, state="ok", stage=None, reason="", pictures=OVERLAYS, **registration):
        at = folder / "pictures" / case_id
        at.mkdir(parents=True)
        for place, name in enumerate(pictures):
            Image.fromarray(np.full((60, 80, 3), 20 * place, np.uint8)).save(at / f"{name}.jpg")
        facts = {
            "case_id": case_id,
            "status": {"state": state, "stage": stage, "reason": reason},
            "registration": registration,
            "pictures": sorted(pictures),
        }
        (at / "facts.json").write_text(json.dumps(facts))

    case.folder = folder
    return case


def written(dataset, *cases):
    page = dataset.folder / "review.html"
    write_review(dataset.folder, cases, page=page)
    return page.read_text(encoding="utf-8")


def test_review_comes_before_failed_and_both_before_what_passed(dataset):
    dataset("fine", similarity=0.5)
    dataset("wrong", "failed", "registration", "no likeness")
    dataset("doubt", "review", "registration", "similarity 0.18")
    page = written(dataset, "fine", "wrong", "doubt")
    order = [page.index(text) for text in ('id="case-doubt"', 'id="case-wrong"', "Pairs that passed")]
    assert order == sorted(order)
    assert 'id="case-fine"' not in page
    assert "3 pairs: 1 in review, 1 failed, 1 ok" in page
    assert "similarity 0.18" in page


def test_every_pair_leads_to_its_landmarks_and_says_what_to_write(dataset):
    dataset("doubt", "review", "registration", "similarity 0.18")
    dataset("fine")
    page = written(dataset, "fine", "doubt")
    assert page.count('href="landmarks/doubt.html"') == page.count('href="landmarks/fine.html"') == 1
    doubt = page[page.index('id="case-doubt"') : page.index('id="fine"')]
    assert re.search(r"write <code>yes</code> into the column <code>accepted</code>", doubt)
    assert "this pair alone is made anew" in doubt


def test_a_slide_that_does_not_open_asks_for_no_landmarks(dataset):
    dataset("broken", "failed", "slides", "truncated", pictures=("he",))
    page = written(dataset, "broken")
    article = page[page.index('id="case-broken"') : page.index('id="fine"')]
    assert "landmarks/" not in article
    assert "Put right what the reason says" in article


def test_the_page_needs_nothing_but_itself(dataset):
    dataset("doubt", "review", "registration", "similarity 0.18")
    page = written(dataset, "doubt")
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(one.startswith(("data:", "#", "landmarks/")) for one in links)
    assert not re.search(r"https?://|url\(|@import", page)


def test_what_a_sheet_says_stays_text(dataset):
    bad = "<img src=x onerror=alert(1)>"
    dataset("doubt", "review", "registration", bad, notes=[bad])
    assert "<img src=x" not in written(dataset, "doubt")


def test_a_picture_that_is_not_there_is_no_view(dataset):
    dataset("with", "review", "registration", "r", pictures=(*OVERLAYS, "residuals"))
    dataset("without", "review", "registration", "r")
    dataset("bare", "failed", "slides", "r", pictures=())
    page = written(dataset, "with", "without", "bare")
    views = {
        name: re.findall(r'<button type="button" data-view="(\w+)"', part)
        for name, part in zip(("with", "without", "bare"), page.split('<article id="case-')[1:], strict=True)
    }
    assert "residuals" in views["with"]
    assert views["without"] == ["flicker", "after", "edges", "deformation", "before", "he", "ihc"]
    assert views["bare"] == []


def test_too_many_pairs_are_listed_and_said_to_be(dataset, monkeypatch):
    monkeypatch.setattr(module, "MAX_SHOWN", 1)
    for name in ("a", "b"):
        dataset(name, "review", "registration", f"reason of {name}")
    page = written(dataset, "a", "b")
    assert "reason of b" in page
    assert 'id="case-b"' not in page
    assert "The first 1 are shown below" in page


def test_numbers_name_what_was_measured_and_leave_out_what_was_not():
    spread = {"median": 12.0, "p90": 30.0}
    found = numbers(
        {
            "similarity": 0.3,
            "similarity_before": 0.1,
            "nmi": None,
            "landmarks": {"tre_before_um": {"median": 400.0}, "tre_um": spread, "n": 8},
            "residuals": {"n": 200, "kept_frac": 0.9, "p50_um": 0.21, "p90_um": 0.6},
            "rotation_deg": 91.2,
            "mirrored": True,
            "scale": 1.002,
            "fold_frac": 0.0,
            "jac_min": 0.9,
            "jac_max": 1.1,
            "chain": [
                {"step": "search", "kept": True, "note": ""},
                {"step": "elastic", "kept": False, "note": "worse"},
            ],
        }
    )
    assert found == {
        "similarity": "0.10 → 0.30",
        "landmark error": "median 400 → 12 µm, 90th percentile 30 µm (8 pairs)",
        "left in windows": "median 0.21 µm, 90th percentile 0.6 µm; 90% of 200 windows agree",
        "placement": "turned by 91.2°, mirrored, scale 1.002",
        "folded": "0.00% of the slide, area × 0.90 to 1.10",
        "steps": "search; elastic (worse)",
    }
    assert numbers({}) == {}
    assert "px" in numbers({"unit": "px", "landmarks": {"tre_before_um": spread, "tre_um": spread}})["landmark error"]


def test_missing_pictures_are_an_error_that_names_the_rule(dataset):
    with pytest.raises(StoreError, match="run picture_case again"):
        written(dataset, "nobody")


@pytest.mark.browser
def test_the_views_change_and_the_frames_flicker_under_one_zoom(dataset):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    dataset("doubt", "review", "registration", "similarity 0.18")
    written(dataset, "doubt")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = chromium.new_page(viewport={"width": 1300, "height": 900})
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto((dataset.folder / "review.html").as_uri())

        def shown():
            return page.locator(".layers img.shown").evaluate_all("all => all.map((one) => one.dataset.name)")

        assert sorted(shown()) == ["he", "warped"]
        page.get_by_text("flicker", exact=True).click()
        seen = set()
        for _ in range(40):
            seen.add(page.locator('[data-name="warped"]').evaluate("one => one.style.opacity"))
            page.wait_for_timeout(50)
        assert {"0", "1"} <= seen
        page.get_by_text("checkerboard", exact=True).click()
        assert shown() == ["after"]
        page.locator(".stage").dblclick()
        assert "scale(3)" in page.locator(".layers").get_attribute("style")
        page.get_by_text("deformation", exact=True).click()
        assert shown() == ["deformation"]
        assert "scale(3)" in page.locator(".layers").get_attribute("style")
        chromium.close()
    assert errors == []
