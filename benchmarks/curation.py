"""How long the curation page takes from a key to the next pair, in headless Chromium.

    python benchmarks/curation.py [--pairs 10000] [--keys 200] [--folder FOLDER] [--thumb-px 128]

Draws a page of pairs of noise (JPEG's worst case), opens it as a file and served, presses keys that keep and drop, and
prints for each way of sorting the time from the key's own time stamp to the first frame that shows the next pair with
its picture; the decision is in the browser's storage by then, and half of the pairs were decided before. Beside it
stands a page as one would write it by hand
(`rivals/contact_sheet.js`): an element for every pair, sprites as backgrounds, all decisions saved at every key. The
frames of a headless browser come every 16.7 ms, so no page is below about 10 ms.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hepipe.report.curation_page import CurationPair, CurationSet, write_page
from hepipe.report.curation_server import CurationServer
from hepipe.specs.quality import Limit

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
TILE_PX = 256
# The time stamp of the key, and the frame after the one in which the next pair was drawn with its picture.
WATCH = """
void (window.taken = [], window.began = 0, window.from = -1,
  addEventListener('keydown', (event) => { window.began = event.timeStamp; window.from = current(); }, true),
  document.addEventListener('drawn', (event) => {
    if (!window.began || event.detail === window.from) return;
    if (!pictures.thumbs.has(event.detail)) return;
    const began = window.began;
    window.began = 0;
    requestAnimationFrame(() => window.taken.push(performance.now() - began));
  }))
"""


@dataclass(frozen=True)
class NoiseSet(CurationSet):
    """Pairs without a store."""

    def read(self, number: int) -> Any:
        noise = np.random.default_rng(number).integers(0, 256, (TILE_PX // 8, TILE_PX // 4, 3), np.uint8)
        both = noise.repeat(8, 0).repeat(8, 1)
        return both[:, :TILE_PX], both[:, TILE_PX:]


def noise_set(folder: Path, count: int) -> NoiseSet:
    rng = np.random.default_rng(1)
    names = [
        f"{kind}_{stain}"
        for kind in ("blur", "pen", "crease", "shade", "veil", "rim_um", "doubling")
        for stain in ("he", "ihc")
    ]
    names += [
        "shift_um",
        "ncc_peak",
        "dab_frac",
        "dab_mean_od",
        "hscore_px",
        "h_mean_od",
        "white_frac_he",
        "white_frac_ihc",
    ]
    values = rng.random((count, len(names)))
    limits = {name: Limit(max=0.97) for name in names[:14]}
    pairs = []
    for number in range(count):
        tile = {
            "tile_id": f"c{number // 600:02d}/{number % 600 // 25}-{number % 25}", "case_id": f"c{number // 600:02d}",
            "her2_score": "2+", "section": "restained", "region": "", "place": "inside",
            "tissue_frac": 0.9, "measurements": dict(zip(names, values[number].tolist(), strict=True)),
        }  # fmt: skip
        verdict = {"keep": number % 10 != 0, "reason": "", "flags": [], "alignment": "aligned"}
        pairs.append(CurationPair(hashlib.sha256(str(number).encode()).hexdigest()[:32], tile, verdict, "none"))
    return NoiseSet(folder, tuple(pairs), {"restained": limits}, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--thumb-px", type=int, default=128)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "noise"
        found = noise_set(folder, given.pairs)
        began, cpu = time.monotonic(), time.process_time()
        told = write_page(found, folder / "curation", reader="ann", thumb_px=given.thumb_px)
        print(told)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"built in {time.monotonic() - began:.1f} s, {time.process_time() - cpu:.1f} CPU s, peak {memory:.0f} MB")
        write_rival(folder / "curation")
        measure(found, folder / "curation", given.keys)


def write_rival(page: Path) -> None:
    """The page by hand, on the same sheets."""
    text = (page / "index.html").read_text(encoding="utf-8")
    data = text.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    script = Path(__file__).with_name("rivals").joinpath("contact_sheet.js").read_text(encoding="utf-8")
    (page / "rival.html").write_text(
        f'<!doctype html><meta charset="utf-8"><body><script type="application/json" id="data">{data}</script>'
        f"<script>{script}</script>",
        encoding="utf-8",
    )


def measure(found: CurationSet, page: Path, keys: int) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        print(f"{'page':34} {'median':>7} {'90 %':>7} {'most':>7} {'opened':>8} {'memory':>9}")
        ours = [drive(chromium, (page / "index.html").as_uri(), sort, keys) for sort in ("", "suspicion", "blur_he")]
        with CurationServer(found, page, reader="bench") as server:
            thread = threading.Thread(target=server.run)
            thread.start()
            drive(chromium, server.url, "blur_he", keys)
            server.stop()
            thread.join()
            due = len(found.pairs) - len(found.pairs) // 2 + keys
            print(f"decisions in the served page's file: {len(server.decisions)} of {due}")
        rival = drive(chromium, (page / "rival.html").as_uri(), None, keys)
        print(f"rival / ours (medians, order of the tiles): {rival / ours[0]:.1f}")
        chromium.close()


def drive(chromium: Any, url: str, sort: str | None, keys: int) -> float:
    """Press keys on a fresh page; prints and gives the median in ms."""
    page = chromium.new_context(viewport={"width": 1500, "height": 950}).new_page()
    opened = time.monotonic()
    page.goto(url)
    name = "rival: an element a pair"
    if sort is not None:
        until(page, "shown.length > 0 && !waiting")
        page.evaluate(f"void (filter.sort = {json.dumps(sort)}, filter.passes = '', showFilters(), refresh(false))")
        page.evaluate("decisions.decide(shown.slice(shown.length / 2).map((number) => [number, KEEP, '']))")
        page.evaluate(WATCH)
        kind = "served" if url.startswith("http") else "file"
        name = f"{kind}, by {sort or 'order of the tiles'}"
        until(page, "!waiting && pictures.thumbs.has(current())")
    else:
        until(page, "Array.isArray(window.taken)")
        page.evaluate(
            "void data.content_id.slice(data.content_id.length / 2).forEach("
            "(id, number) => { decisions[id] = { tile: data.tile_id[number], choice: 'keep', key: 'k' }; })"
        )
    ready = time.monotonic() - opened
    for number in range(keys):
        page.keyboard.press("k1k2k3kd"[number % 8])
        until(page, f"taken.length > {number}")
    if sort is not None:
        until(page, "!courier || $('saved').textContent === 'saved'")
    taken = page.evaluate("taken")
    if sort is not None:
        stored = page.evaluate("decisions.steps.length")
        assert stored == keys + 1, stored
    middle = statistics.median(taken)
    ninth = statistics.quantiles(taken, n=10)[-1]
    print(
        f"{name:34} {middle:6.1f}  {ninth:6.1f}  {max(taken):6.1f}  {ready:6.2f} s {renderer_mb(chromium):6.0f} MB",
        flush=True,
    )
    page.context.close()
    return middle


def renderer_mb(chromium: Any) -> float:
    """Memory of the largest process that draws a page, shared parts divided among those who share them."""
    session = chromium.new_browser_cdp_session()
    found = [0.0]
    for process in session.send("SystemInfo.getProcessInfo")["processInfo"]:
        if process["type"] == "renderer":
            rollup = Path(f"/proc/{process['id']}/smaps_rollup").read_text()
            found.append(int(rollup.split("Pss:")[1].split()[0]) / 1000)
    session.detach()
    return max(found)


def until(page: Any, condition: str) -> None:
    """Wait in our own way: Playwright's would evaluate text, which the page's policy forbids."""
    end = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(2)


if __name__ == "__main__":
    main()
