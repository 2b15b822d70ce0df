"""The landmarks page: what it holds, and what a person does on it in headless Chromium."""

import csv
import json
import re
import shutil

import numpy as np
import pytest

from hepipe.geometry import Transform
from hepipe.registration.landmarks import read_landmarks
from hepipe.registration.template import export_pair, suggest_places, template_pairs
from hepipe.report import landmark_page as module
from hepipe.report.landmark_page import landmark_page, page_without_slides
from hepipe.slides.picture import ArraySlide

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SIZE = (600, 480)
TURN = np.array([[0.0, -1.0, 520.0], [1.0, 0.0, 30.0], [0.0, 0.0, 1.0]])


def drawn(size=SIZE, seed=0):
    """Tissue with dots on glass."""
    rng = np.random.default_rng(seed)
    rgb = np.full((size[1], size[0], 3), 240, np.uint8)
    rgb[60:-60, 60:-60] = (205, 150, 190)
    for x, y in rng.integers(80, (size[0] - 80, size[1] - 80), (150, 2)):
        rgb[y : y + 7, x : x + 7] = (80, 50, 120)
    return rgb


@pytest.fixture
def slides():
    he = ArraySlide(drawn(), mpp=0.5, slide_id="C1-he")
    ihc = ArraySlide(np.rot90(drawn(), 3).copy(), mpp=0.5, slide_id="C1-ihc")
    return he, ihc


def embedded(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found.group(1))


def test_the_page_carries_both_slides_the_transform_and_no_address(slides):
    page = landmark_page(*slides, case_id="C1", ihc_from_he=Transform(TURN, 0.5, 0.5))
    data = embedded(page)
    assert data["he"]["size"] == [600, 480]
    assert data["ihc"]["size"] == [480, 600]
    grid = data["grid"]
    node = 5 * grid["columns"] + 7
    moved = TURN @ (7 * grid["step"][0], 5 * grid["step"][1], 1)
    assert (grid["x"][node], grid["y"][node]) == pytest.approx(moved[:2], abs=0.06)
    np.testing.assert_allclose(np.reshape(data["he_from_ihc"], (2, 2)), np.linalg.inv(TURN[:2, :2]), atol=1e-5)
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    assert all(source.startswith("data:image/jpeg") for source in re.findall(r'src="([^"]*)"', page))


def test_a_case_id_cannot_write_into_the_page(slides):
    bad = "</script><script>alert(1)</script>"
    page = landmark_page(*slides, case_id=bad)
    assert "alert(1)</script>" not in page
    assert embedded(page)["case"] == bad
    assert "<script" not in page_without_slides("C1", bad)


def test_a_page_stays_within_its_budget(slides, monkeypatch):
    whole = len(landmark_page(*slides, case_id="C1"))
    monkeypatch.setattr(module, "MAX_BYTES", int(whole * 0.9))
    assert len(landmark_page(*slides, case_id="C1")) <= int(whole * 0.9)


def test_large_slides_come_with_sharp_windows_around_the_suggested_places(monkeypatch):
    rgb = np.full((900, 2400, 3), 240, np.uint8)
    rgb[200:700, 300:2100] = (190, 120, 170)
    for row in range(200, 700, 40):
        for column in range(300, 2100, 40):
            rgb[row : row + 12, column : column + 12] = (60, 30, 90)
    he, ihc = (ArraySlide(rgb, mpp=0.25, slide_id=f"C1-{stain}") for stain in ("he", "ihc"))
    still = Transform(np.eye(3), 0.25, 0.25)
    assert len(embedded(landmark_page(he, ihc, case_id="C1", ihc_from_he=still))["he"]["pictures"]) == 1
    monkeypatch.setattr(module, "OVERVIEW_PX", 200)
    data = embedded(landmark_page(he, ihc, case_id="C1", ihc_from_he=still))
    assert len(data["he"]["pictures"]) == len(data["ihc"]["pictures"]) == len(data["template"]) + 1 > 4
    x, y, width, _ = data["he"]["pictures"][1]["at"]
    assert (x + width / 2, y + width / 2) == pytest.approx(data["template"][0], abs=0.1)
    assert width == module.WINDOW_PX["he"] / 0.25


def test_suggested_places_lie_on_tissue_and_far_apart():
    places = suggest_places(drawn())
    assert len(places) > 10
    assert ((places > 60) & (places < (540, 420))).all()
    apart = np.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * np.eye(len(places))
    assert apart.min() > 25
    assert len(suggest_places(np.full((50, 50, 3), 240, np.uint8))) == 0


def test_shaded_glass_is_no_place_for_a_landmark():
    rgb = drawn()
    rgb[440:] = (205, 200, 185)
    assert (suggest_places(rgb)[:, 1] < 430).all()


def test_suggestions_go_where_the_transform_says_and_only_on_the_slide(slides):
    he, partners = template_pairs(*slides, Transform(TURN, 0.5, 0.5))
    np.testing.assert_allclose(partners, he @ TURN[:2, :2].T + TURN[:2, 2])
    away = TURN.copy()
    away[0, 2] += 200
    fewer, _ = template_pairs(*slides, Transform(away, 0.5, 0.5))
    assert 0 < len(fewer) < len(he)


def test_what_is_exported_for_qupath_comes_back_as_pairs(slides, tmp_path):
    count = export_pair(*slides, Transform(TURN, 0.5, 0.5), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("README.txt", "he.geojson", "he.png", "ihc.geojson", "ihc.png", "template.csv")
    ]
    found = read_landmarks("C1", f"{tmp_path / 'out/he.geojson'};{tmp_path / 'out/ihc.geojson'}")
    assert len(found.he_px0) == count
    np.testing.assert_array_equal(found.he_px0, read_landmarks("C1", str(tmp_path / "out/template.csv")).he_px0)


# In Chromium -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, slides, tmp_path):
    """A factory of pages from files, as a person opens them; an error of the script fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 700}, accept_downloads=True)
    errors = []

    def open_page(**options):
        path = tmp_path / "page.html"
        path.write_text(landmark_page(*slides, case_id="C1", **options), encoding="utf-8")
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: errors.append(request.url) if request.url.startswith("http") else None)
        page.goto(path.as_uri())
        until(page, "views.he.pictures[0].image.complete")
        return page

    yield open_page
    context.close()
    assert errors == []


def until(page, condition):
    """Wait in our own way: Playwright's would evaluate text, which the page's policy forbids."""
    for _ in range(200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(condition)


def click(page, name, point):
    x, y = (round(value) for value in page.evaluate(f"views.{name}.toScreen({list(point)})"))
    on_slide = page.evaluate(f"views.{name}.toSlide([{x}, {y}])")
    page.mouse.click(*pointer(page, name, x, y))
    return [round(value, 2) for value in on_slide]


def pointer(page, name, x, y):
    """Where on the page a place of a canvas is; it has a border of 1 px."""
    box = page.locator(f"#{name}").bounding_box()
    return box["x"] + 1 + x, box["y"] + 1 + y


def saved(page, key="s"):
    with page.expect_download() as download:
        page.keyboard.press(key)
    assert download.value.suggested_filename == "C1-landmarks.csv"
    with open(download.value.path(), newline="") as lines:
        return [[float(row[name]) for name in ("x_he", "y_he", "x_ihc", "y_ihc")] for row in csv.DictReader(lines)]


PAIRS = [((100, 90), (90, 500)), ((500, 100), (100, 90)), ((120, 380), (380, 480)), ((480, 370), (370, 110))]


@pytest.mark.browser
def test_four_clicked_pairs_are_the_file_that_is_saved(opened, tmp_path):
    page = opened()
    expected = [[*click(page, "he", he), *click(page, "ihc", ihc)] for he, ihc in PAIRS]
    rows = saved(page)
    assert len(rows) == 4
    np.testing.assert_allclose(rows, expected, atol=0.011)
    assert page.evaluate("pairs.map((pair) => [...pair.he, ...pair.ihc])") == rows
    np.testing.assert_allclose(rows, [[*he, *ihc] for he, ihc in PAIRS], atol=1.5)


@pytest.mark.browser
def test_the_transform_proposes_the_partner_and_enter_takes_it(opened):
    page = opened(ihc_from_he=Transform(TURN, 0.5, 0.5))
    point = click(page, "he", (200, 150))
    page.keyboard.press("Enter")
    np.testing.assert_allclose(saved(page), [[*point, 520 - point[1], 30 + point[0]]], atol=0.1)


@pytest.mark.browser
def test_a_partner_without_a_beginning_is_refused_with_a_word(opened):
    page = opened()
    click(page, "ihc", (200, 150))
    assert page.locator("#say").inner_text() == "Begin with a point on the H&E."
    assert saved(page) == []


@pytest.mark.browser
def test_a_marker_is_dragged_removed_and_brought_back(opened):
    page = opened(he_px0=np.array([[300.0, 200.0]]), ihc_px0=np.array([[200.0, 300.0]]))
    for at in ([200.0, 300.0], [260.0, 340.0]):
        x, y = page.evaluate(f"views.ihc.toScreen({at})")
        page.mouse.move(*pointer(page, "ihc", x, y), steps=3)
        page.mouse.down() if at[0] == 200.0 else page.mouse.up()
    np.testing.assert_allclose(saved(page), [[300, 200, 260, 340]], atol=0.02)
    page.keyboard.press("Delete")
    assert saved(page) == []
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert saved(page) == [[300.0, 200.0, 200.0, 300.0]]


@pytest.mark.browser
def test_a_misplaced_pair_is_coloured_and_its_distance_told(opened):
    he = np.array([[100, 100], [500, 100], [100, 400], [500, 400], [300, 250], [200, 300], [400, 150]], float)
    ihc = he @ TURN[:2, :2].T + TURN[:2, 2] + np.random.default_rng(0).normal(0, 0.5, he.shape)
    ihc[4] += (60, 0)
    page = opened(he_px0=he, ihc_px0=ihc)
    page.wait_for_selector("#list tr.bad")
    bad = page.locator("#list tr.bad td").all_inner_texts()
    assert bad[0] == "5"
    assert float(bad[1]) == pytest.approx(30, abs=2)


@pytest.mark.browser
def test_the_wheel_zooms_about_the_pointer_and_the_ihc_follows(opened):
    page = opened(ihc_from_he=Transform(TURN, 0.5, 0.5))
    held = page.evaluate("views.he.toSlide([150, 120])")
    page.mouse.move(*pointer(page, "he", 150, 120))
    page.mouse.wheel(0, -600)
    until(page, "views.he.pxPerUm > 3")
    # A wheel's event comes in whole px, the canvas lies between them.
    assert page.evaluate("views.he.toSlide([150, 120])") == pytest.approx(held, abs=1.0)
    middle = page.evaluate("views.he.middle")
    assert page.evaluate("views.ihc.middle") == pytest.approx([520 - middle[1], 30 + middle[0]], abs=0.1)
    assert page.evaluate("views.ihc.turned") == pytest.approx([0, 1, -1, 0], abs=1e-5)


@pytest.mark.browser
def test_points_survive_the_closing_of_the_page(opened):
    page = opened()
    expected = [*click(page, "he", (100, 90)), *click(page, "ihc", (90, 400))]
    page.close()
    again = opened()
    assert "last visit" in again.locator("#say").inner_text()
    np.testing.assert_allclose(saved(again), [expected], atol=0.011)


@pytest.mark.browser
def test_a_saved_file_opens_again_and_another_one_is_refused(opened, tmp_path):
    page = opened()
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("x_he,y_he,x_ihc,y_ihc\n1.25,2,3,4\n5,6,7,8.5\n")
    bad.write_text("x,y\n1,2\n")
    page.locator("#open").set_input_files(good)
    until(page, "pairs.length === 2")
    page.locator("#open").set_input_files(bad)
    page.wait_for_selector("#say.warn")
    assert "hepipe landmarks import" in page.locator("#say").inner_text()
    assert saved(page) == [[1.25, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.5]]


@pytest.mark.browser
def test_the_page_gives_qupath_a_file_that_reads_back(opened, tmp_path):
    he, ihc = np.array([[1.0, 2.0], [300.0, 4.0], [5.0, 260.0]]), np.array([[9.0, 8.0], [7.0, 300.0], [200.0, 6.5]])
    page = opened(he_px0=he, ihc_px0=ihc)
    for name in ("he", "ihc"):
        with page.expect_download() as download:
            page.locator(f"#qupath-{name}").click()
        download.value.save_as(tmp_path / f"{name}.geojson")
    found = read_landmarks("C1", f"{tmp_path / 'he.geojson'};{tmp_path / 'ihc.geojson'}")
    np.testing.assert_array_equal(found.he_px0, he)
    np.testing.assert_array_equal(found.ihc_px0, ihc)
