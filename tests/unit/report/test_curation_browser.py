"""What a person does on the curation page, in headless Chromium: static and served, with 10,000 pairs."""

import csv
import dataclasses
import functools
import hashlib
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from curation_sets import write_set

from hepipe.dataset.decisions import read_decisions
from hepipe.report.curation_page import CurationPair, CurationSet, read_set, write_page
from hepipe.report.curation_server import CurationServer
from hepipe.specs.quality import Limit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MANY = 10_000


@dataclasses.dataclass(frozen=True)
class DrawnSet(CurationSet):
    """Pairs without a store: flat tiles, dark to light."""

    def read(self, number):
        grey = np.full((16, 16, 3), 30 + number % 200, np.uint8)
        return grey, 255 - grey


def drawn_set(folder, count):
    pairs = []
    for number in range(count):
        passes = number % 10 != 9
        tile = {
            "tile_id": f"c{number // 500}/{number}", "case_id": f"c{number // 500}", "her2_score": "2+",
            "section": "restained", "region": "", "place": "inside", "tissue_frac": 0.9,
            # Every hundredth is near the limit of 0.75, every tenth beyond it.
            "measurements": {"blur_he": 0.74 if number % 100 == 7 else 0.2 + number % 1000 / 1e4 if passes else 1.1},
        }  # fmt: skip
        flags = [] if passes else ["blur_he"]
        verdict = {"keep": passes, "reason": "".join(flags), "flags": flags, "alignment": "aligned"}
        key = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        pairs.append(CurationPair(key, tile, verdict, "none"))
    return DrawnSet(folder, tuple(pairs), {"restained": {"blur_he": Limit(max=0.75)}}, 0)


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
def context(browser):
    """A fresh browser; an error of the script, or a request to elsewhere, fails the test."""
    found = browser.new_context(viewport={"width": 1400, "height": 850}, accept_downloads=True)
    errors = []
    found.on("weberror", lambda error: errors.append(str(error.error)))
    found.on(
        "request",
        lambda request: (
            errors.append(request.url) if "//127.0.0.1" not in request.url and request.url.startswith("http") else None
        ),
    )
    yield found
    found.close()
    assert errors == []


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = write_set(tmp_path_factory.mktemp("small") / "small", n_tiles=20)
    write_page(read_set(folder), folder / "curation", reader="ann", thumb_px=16, view_px=16)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    folder = tmp_path_factory.mktemp("many") / "many"
    write_page(drawn_set(folder, MANY), folder / "curation", reader="ann", thumb_px=16)
    return folder


def opened(context, folder):
    page = context.new_page()
    page.goto((folder / "curation" / "index.html").as_uri() if isinstance(folder, Path) else folder)
    until(page, "pictures && shown.length > 0 && $('saved') !== null && !waiting")
    return page


def until(page, condition):
    """Wait in our own way: Playwright's would evaluate text, which the page's policy forbids."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(25)
    raise AssertionError(condition)


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def saved(page, tmp_path):
    with page.expect_download() as download:
        page.keyboard.press("s")
    assert download.value.suggested_filename == "decisions-ann.csv"
    download.value.save_as(tmp_path / "saved.csv")
    return read_decisions(tmp_path / "saved.csv").decisions


def said(decisions):
    return {row.tile_id: row.decision + (f": {row.reason}" if row.reason else "") for row in decisions.values()}


def pick(page, name, value):
    page.locator(f"#{name}").select_option(value)


@pytest.mark.browser
def test_keys_decide_the_pair_at_hand_and_go_to_the_next(context, small, tmp_path):
    page = opened(context, small)
    pick(page, "sort", "")
    page.locator("#scroll").focus()
    press(page, "Home", "k", "d", "3", "ArrowRight", "k", "ArrowLeft", "ArrowLeft", "1")
    assert said(saved(page, tmp_path)) == {
        "a/0-0": "keep", "a/1-0": "drop", "a/2-0": "drop: pen or dirt", "a/3-0": "drop: out of focus", "a/4-0": "keep",
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "saved.csv").open()))
    assert {row["reader"] for row in rows} == {"ann"}
    assert rows[0]["content_id"] == read_set(small).pairs[0].content_id
    assert all(row["time"].endswith("Z") for row in rows)


@pytest.mark.browser
def test_undo_takes_back_step_by_step_and_returns_to_the_pair(context, small, tmp_path):
    page = opened(context, small)
    pick(page, "sort", "")
    page.locator("#scroll").focus()
    press(page, "Home", "k", "d", "ArrowLeft", "2", "u")
    assert said(saved(page, tmp_path)) == {"a/0-0": "keep", "a/1-0": "drop"}
    assert page.evaluate("at") == 1
    press(page, "Control+z", "0", "u", "u", "u")
    assert said(saved(page, tmp_path)) == {}
    page.on("dialog", lambda dialog: dialog.accept())
    press(page, "Shift+K")
    assert len(saved(page, tmp_path)) == 34
    press(page, "u")
    assert saved(page, tmp_path) == {}


@pytest.mark.browser
def test_decisions_outlive_the_page_and_another_build_of_it(context, small, tmp_path):
    page = opened(context, small)
    press(page, "k", "4", "d")
    before = said(saved(page, tmp_path))
    page.close()
    folder = Path(shutil.copytree(small, tmp_path / "small"))
    write_page(read_set(folder), folder / "curation", reader="ann", thumb_px=8)
    again = opened(context, folder)
    assert len(before) == 3
    assert said(saved(again, tmp_path)) == before


@pytest.mark.browser
def test_filters_sort_and_ranges_choose_what_is_shown(context, many):
    page = opened(context, many)
    assert page.evaluate("shown.length") == 9000
    # The most suspicious first: those near the limit.
    assert page.evaluate("pairs.numbers.blur_he[shown[0]]") == 0.74
    page.locator("#suggested").check()
    assert page.evaluate("shown.length") == 100
    until(page, "!waiting")
    assert "blur_he at 99% of its limit" in page.locator("#facts").inner_text()
    page.locator("#all").click()
    pick(page, "passes", "0")
    assert page.evaluate("shown.length") == 1000
    until(page, "!waiting")
    assert "dropped: blur_he" in page.locator("#facts").inner_text()
    pick(page, "case", "c3")
    assert page.evaluate("shown.length") == 50
    page.locator("#all").click()
    pick(page, "sort", "blur_he")
    page.locator("#low").fill("0.25")
    page.locator("#high").fill("0.26")
    expected = page.evaluate("pairs.numbers.blur_he.filter((v, n) => pairs.passes[n] && v >= 0.25 && v <= 0.26).length")
    assert page.evaluate("shown.length") == expected > 0
    page.locator("#descending").uncheck()
    values = page.evaluate("shown.map((n) => pairs.numbers.blur_he[n])")
    assert values == sorted(values)
    page.locator("#text").fill("c3/15")
    assert page.evaluate("shown.every((n) => pairs.tile_id[n].startsWith('c3/15'))")


@pytest.mark.browser
def test_a_range_is_dragged_from_the_histogram(context, many):
    page = opened(context, many)
    pick(page, "sort", "blur_he")
    box = page.locator("#histogram").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.01, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + 20, steps=3)
    page.mouse.up()
    low, high = page.evaluate("filter.ranges.blur_he")
    assert 0.2 < low < high < 0.74
    assert 0 < page.evaluate("shown.length") < 9000
    page.locator("#ranges button").click()
    assert page.evaluate("shown.length") == 9000


@pytest.mark.browser
def test_ten_thousand_pairs_are_decided_key_by_key_on_few_elements(context, many, tmp_path):
    page = opened(context, many)
    assert page.evaluate("pairs.count") == MANY
    assert page.evaluate("document.querySelectorAll('*').length") < 600
    pick(page, "sort", "blur_he")
    page.locator("#scroll").focus()
    order = page.evaluate("shown.slice(0, 60)")
    press(page, *("k12345d"[number % 7] for number in range(60)))
    until(page, "!waiting")
    assert page.evaluate("at") == 60
    found = saved(page, tmp_path)
    names = page.evaluate("pairs.tile_id")
    assert set(said(found)) == {names[number] for number in order}
    press(page, "End")
    until(page, "!waiting && pictures.thumbs.has(current())")
    press(page, "d")
    assert page.evaluate("decisions.counts") == [MANY - 61, 9, 52]
    # Few pictures stay in memory, however far one scrolls.
    for _ in range(60):
        press(page, "PageUp")
        until(page, "!waiting && pictures.thumbs.has(current())")
    assert 400 < page.evaluate("pictures.thumbs.ready.size") <= 800


@pytest.mark.browser
def test_thousands_decided_at_once_outlive_the_page_and_are_undone_at_once(context, many):
    page = opened(context, many)
    page.on("dialog", lambda dialog: dialog.accept())
    press(page, "d", "Shift+K", "2", "0", "1")
    assert page.evaluate("decisions.counts") == [1000, 8997, 3]
    page.close()
    again = opened(context, many)
    assert again.evaluate("decisions.counts") == [1000, 8997, 3]
    page = opened(context, many)
    page.on("dialog", lambda dialog: dialog.accept())
    pick(page, "passes", "0")
    page.locator("#scroll").focus()
    press(page, "Shift+K")
    assert page.evaluate("decisions.counts") == [0, 9997, 3]
    press(page, "u")
    assert page.evaluate("decisions.counts") == [1000, 8997, 3]
    # What was decided over and over takes no more room for ever.
    page.close()
    size = opened(context, many).evaluate("JSON.stringify(localStorage).length")
    assert size < 1.6 * again.evaluate(
        "journal._lines([...pairs.content_id.keys()].map((n) => decisions.row(n))).length"
    )


@pytest.mark.browser
def test_the_file_of_another_data_set_is_refused_and_ones_own_goes_on(context, small, many, tmp_path):
    page = opened(context, small)
    press(page, "k", "3")
    mine = said(saved(page, tmp_path))
    page.evaluate("localStorage.clear()")
    page.close()
    other = opened(context, many)
    other.locator("#open").set_input_files(tmp_path / "saved.csv")
    until(other, "$('saved').textContent.includes(\"another data set's\")")
    assert other.evaluate("decisions.counts[0]") == MANY
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    other.locator("#open").set_input_files(tmp_path / "bad.csv")
    until(other, "$('saved').textContent.includes('no column content_id')")
    again = opened(context, small)
    again.locator("#open").set_input_files(tmp_path / "saved.csv")
    until(again, "$('saved').textContent.startsWith('2 decisions read')")
    assert said(saved(again, tmp_path)) == mine


@pytest.mark.browser
@pytest.mark.parametrize(
    ("column", "cell"), [("tile_id", "=1+1"), ("reason", "<b>"), ("reason", "a\tb"), ("time", "yesterday")]
)
def test_a_file_with_a_cell_that_the_pipeline_refuses_is_refused_whole(context, small, tmp_path, column, cell):
    page = opened(context, small)
    row = {"content_id": page.evaluate("pairs.content_id[0]"), "tile_id": "a/0", "decision": "drop", column: cell}
    (tmp_path / "odd.csv").write_text(",".join(row) + (",reason" if "reason" not in row else "") + "\n")
    with (tmp_path / "odd.csv").open("a") as file:
        file.write(",".join(row.values()) + ("," if "reason" not in row else "") + "\n")
    page.locator("#open").set_input_files(tmp_path / "odd.csv")
    until(page, f"$('saved').textContent.includes('line 2, {column}')")
    assert page.evaluate("decisions.counts[0]") == page.evaluate("pairs.count")


@pytest.mark.browser
def test_two_windows_are_warned_and_lose_nothing(context, small, tmp_path):
    first, second = opened(context, small), opened(context, small)
    first.bring_to_front()
    press(first, "k")
    until(second, "$('saved').textContent.startsWith('Another window')")
    second.bring_to_front()
    press(second, "ArrowRight", "d")
    first.close()
    second.close()
    assert sorted(said(saved(opened(context, small), tmp_path)).values()) == ["drop", "keep"]


@pytest.mark.browser
def test_a_full_storage_is_told_at_once(context, small):
    page = opened(context, small)
    page.evaluate("void (Storage.prototype.setItem = () => { throw new Error('full'); })")
    press(page, "k")
    assert page.locator("#saved").inner_text() == "This browser's storage is full: save the CSV now"


# Served ------------------------------------------------------------------------------------------------------


@pytest.fixture
def running(small, tmp_path):
    folder = Path(shutil.copytree(small, tmp_path / "small"))
    write_page(read_set(folder), folder / "curation", reader="ann", thumb_px=16)
    with CurationServer(read_set(folder), folder / "curation", reader="ann") as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        yield server
        server.stop()
        thread.join()


@pytest.mark.browser
def test_a_served_page_writes_every_decision_to_its_file(context, running):
    page = opened(context, running.url)
    until(page, "pictures.served")
    press(page, "k", "2", "d", "u")
    until(page, "$('saved').textContent === 'saved'")
    assert sorted(said(read_decisions(running.file).decisions).values()) == ["drop: fold", "keep"]
    assert page.evaluate("localStorage.length") == 0
    page.close()
    again = opened(context, running.url)
    until(again, "decisions.counts[0] === 38")


@pytest.mark.browser
def test_a_page_that_closes_on_the_key_loses_nothing(context, running):
    page = opened(context, running.url)
    until(page, "pictures.served")
    press(page, *"k" * 20)
    page.close()
    again = opened(context, running.url)
    until(again, "$('saved').textContent === 'saved'")
    assert len(read_decisions(running.file)) == 20


@pytest.mark.browser
def test_what_the_server_does_not_take_is_told_and_sent_again(context, running, monkeypatch):
    page = opened(context, running.url)
    until(page, "pictures.served")
    take = functools.partial(CurationServer.take, running)
    monkeypatch.setattr(running, "take", lambda body: (_ for _ in ()).throw(RuntimeError("gone")))
    press(page, "k", "d")
    until(page, "$('saved').classList.contains('warn')")
    assert page.locator("#saved").inner_text().startswith("Not saved, trying again")
    monkeypatch.setattr(running, "take", take)
    until(page, "$('saved').textContent === 'saved'")
    assert len(read_decisions(running.file)) == 2


@pytest.mark.browser
def test_decisions_on_pairs_that_are_gone_hold_up_no_others_and_stay_in_the_browser(context, running):
    page = opened(context, running.url)
    until(page, "pictures.served")
    gone = {"content_id": "f" * 32, "tile_id": "old/1", "decision": "drop", "reason": "", "time": ""}
    page.evaluate("row => journal.add([row])", gone)
    page.close()
    again = opened(context, running.url)
    until(again, "pictures.served")
    press(again, "k")
    until(again, "$('saved').textContent === 'saved' && !courier.flying")
    assert len(read_decisions(running.file)) == 1
    assert again.evaluate("new Journal(localStorage, journal.name).read().map((row) => row.tile_id)") == ["old/1"]


@pytest.mark.browser
def test_zoom_and_flicker_show_the_tile_of_the_store(context, running):
    page = opened(context, running.url)
    until(page, "pictures.served")
    pick(page, "sort", "")
    page.locator("#scroll").focus()
    press(page, "Home", "Enter")
    until(page, "$('zoom').open && $('lens-about').textContent.includes('16 px a side')")
    left = "Array.from($('lens').getContext('2d').getImageData(200, $('lens').height / 2, 1, 1).data.slice(0, 3))"
    np.testing.assert_allclose(page.evaluate(left), [10, 10, 10], atol=4)
    page.keyboard.down("f")
    until(page, f"turned && {left}[0] > 150")
    np.testing.assert_allclose(page.evaluate(left), [200, 150, 90], atol=6)
    page.keyboard.up("f")
    until(page, f"{left}[0] < 20")
    press(page, "d")
    assert page.evaluate("[decisions.choice[0], at, $('zoom').open]") == [2, 1, True]
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -500)
    until(page, "lens.scale > 1.5")
    press(page, "Enter")
    until(page, "!$('zoom').open")
