"""How well the default limits find artifacts that are planted in drawn slides, and tiles that are misaligned.

    python benchmarks/artifacts.py --folder FOLDER [--seed 7] [--cases 20] [--section restained] [--tile-px 256]

A cohort of 20 patients is drawn into FOLDER and cut once (about 10 CPU s a patient), and found again by a later run.
The limits were set on seeds 2 and 3; figures are of another seed.

A tile has an artifact when it covers at least 5 % of it; tiles with less of one are set aside. Printed by kind and
stain: recall by third of severity, over the upper two thirds, and the severity at which half is found (logistic fit).
What the generator does not draw is planted in clean tiles, one in each (`artifactbars/planted.py` has the ranges).
Misaligned tiles are the clean ones read through the true transform moved by 10 to 40 µm. The true registration is
used, so that its errors do not count here.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from artifactbars.drawn import SHIFT_UM, Label, Section, Tiles, drawn_tiles
from artifactbars.figures import BINS, HEAD, by_severity, share
from artifactbars.planted import plan, plant

from hepipe.quality.measures import Measure, measures_of
from hepipe.quality.verdict import grade
from hepipe.specs.quality import QualitySpec

COVERED = 0.05
OUTSIDE = 0.05
"""More of a tile beyond the other slide: rightly dropped, and no artifact."""


@dataclass(frozen=True)
class Judged:
    """A tile and its verdict.

    Attributes:
        origin: drawn, planted or moved.
        score: HER2 score of its case.
        covered: Share under each artifact; of a planted one, 1.
        severity: Of each artifact; of a moved tile the shift in µm.
        keep: The verdict.
        flags: Limits it fails.
        alignment: Its class.
    """

    origin: str
    score: str
    covered: Mapping[Label, float]
    severity: Mapping[Label, float]
    keep: bool
    flags: list[str]
    alignment: str

    @property
    def is_clean(self) -> bool:
        return max(self.covered.values(), default=0.0) == 0

    @property
    def worst(self) -> float:
        """Severity of the worst artifact that covers enough; below 0 without one."""
        return max((self.severity[one] for one, part in self.covered.items() if part >= COVERED), default=-1.0)


def judged(tiles: Tiles, quality: QualitySpec, *, plants: bool = True) -> Iterator[Judged]:
    """Every tile of a case as drawn, and with `plants` the clean ones again, planted and moved."""
    measures = measures_of(tiles.stains, tiles.section, thresholds_od=None)

    def verdict(he: np.ndarray, ihc: np.ndarray, outside: float) -> dict[str, object]:
        numbers = {"outside_frac_he": 0.0, "outside_frac_ihc": outside, **_measured(measures, he, ihc, tiles.mpp)}
        row = {"tile_id": "", "section": tiles.section, "problem": "", "measurements": numbers}
        found = grade([row], quality)[0]
        return {"keep": found["keep"], "flags": found["flags"], "alignment": found["alignment"]}

    # Cases go on with one another's severities: each has some twenty clean tiles.
    clean = 20 * int(tiles.case_id[-3:])
    for number in range(len(tiles.he)):
        outside = float(tiles.outside[number])
        if outside > OUTSIDE:
            continue
        he, ihc = tiles.he[number], tiles.ihc[number]
        covered = {label: float(part) for label, part in zip(tiles.labels, tiles.covered[number], strict=True)}
        severity = dict(zip(tiles.labels, tiles.severity, strict=True))
        one = Judged("drawn", tiles.score, covered, severity, **verdict(he, ihc, outside))
        yield one
        if not (plants and one.is_clean):
            continue
        kind, stain, worse = plan(clean, restained=tiles.section == "restained")
        clean += 1
        label = (kind, stain)
        changed = plant(tiles, number, kind, stain, worse)
        yield Judged("planted", tiles.score, {label: 1.0}, {label: worse}, **verdict(*changed, outside))
        off = verdict(he, tiles.off[number], outside)
        yield Judged("moved", tiles.score, {}, {("shift", "ihc"): float(tiles.off_um[number])}, **off)


def _measured(measures: list[Measure], he: np.ndarray, ihc: np.ndarray, mpp: float) -> dict[str, float]:
    return {name: value for measure in measures for name, value in measure(he, ihc, mpp).items()}


def report(tiles: list[Judged]) -> None:
    """Print every table."""
    drawn = [tile for tile in tiles if tile.origin == "drawn"]
    planted = [tile for tile in tiles if tile.origin == "planted"]
    clean = [tile for tile in drawn if tile.is_clean]
    print(f"{len(drawn)} drawn tiles: {sum(t.worst >= 0 for t in drawn)} with an artifact, {len(clean)} clean")
    _print_overall("drawn by the generator", drawn, clean)
    _print_overall("planted in clean tiles", planted, clean)
    _print_overall("both", [*drawn, *planted], clean)
    print(f"{'':20s}" + "".join(f"{name:>15s}" for name in HEAD))
    for group in (drawn, planted):
        _print_kinds(group)
    print("clean tiles dropped, by HER2 score: ", end="")
    print(
        ", ".join(
            f"{s}: {share([not t.keep for t in clean if t.score == s])}" for s in sorted({t.score for t in clean})
        )
    )
    print("why clean tiles are dropped:", dict(Counter(flag for tile in clean for flag in tile.flags).most_common()))
    _print_moved([tile for tile in tiles if tile.origin == "moved"], clean)


def _print_overall(name: str, group: list[Judged], clean: list[Judged]) -> None:
    worse = [tile for tile in group if tile.worst >= BINS[0][1]]
    found, false = sum(not tile.keep for tile in worse), sum(not tile.keep for tile in clean)
    mostly = [not t.keep for t in worse if max(t.covered.values()) >= 0.2]
    print(
        f"{name}: upper two thirds of severity: recall {found / max(len(worse), 1):.3f} of {len(worse)} "
        f"(a fifth of the tile or more: {share(mostly)}), precision {found / max(found + false, 1):.3f}, "
        f"{false} of {len(clean)} clean tiles dropped"
    )


def _print_kinds(group: list[Judged]) -> None:
    rows: defaultdict[Label, list[tuple[float, bool, list[str]]]] = defaultdict(list)
    for tile in group:
        for label, part in tile.covered.items():
            if part >= COVERED:
                rows[label].append((tile.severity[label], not tile.keep, tile.flags))
    for (kind, stain), own in sorted(rows.items()):
        severity, found, flags = zip(*own, strict=True)
        print(f"{kind:12s}{stain:8s}" + "".join(f"{cell:>15s}" for cell in by_severity(severity, found)), end="   ")
        common = Counter(flag for one in flags for flag in one).most_common(3)
        print(", ".join(f"{flag} {count}" for flag, count in common))


def _print_moved(moved: list[Judged], clean: list[Judged]) -> None:
    shift = np.array([tile.severity["shift", "ihc"] for tile in moved])
    dropped, doubted = (np.array(v) for v in zip(*((not t.keep, t.alignment != "aligned") for t in moved), strict=True))
    print(
        f"moved by {SHIFT_UM[0]:g} to {SHIFT_UM[1]:g} µm: dropped {share(dropped)}, not called aligned {share(doubted)}"
    )
    for low, high in ((10, 15), (15, 20), (20, 25), (25, 40)):
        own = (shift >= low) & (shift < high)
        print(f"  {low} to {high} µm: dropped {share(dropped[own])}, not called aligned {share(doubted[own])}")
    print("  classes of moved tiles:", dict(Counter(tile.alignment for tile in moved)))
    print("  classes of clean tiles in place:", dict(Counter(tile.alignment for tile in clean)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cases", type=int, default=20)
    parser.add_argument("--section", choices=("restained", "consecutive"), default="restained")
    parser.add_argument("--folder", type=Path, required=True, help="Slides and tiles are kept here, and found again.")
    parser.add_argument("--tile-px", type=int, default=256)
    parser.add_argument("--quality", default="{}", help="QualitySpec as JSON.")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    quality = QualitySpec.model_validate(json.loads(given.quality))
    section: Section = given.section
    tiles: list[Judged] = []
    for number in range(1, given.cases + 1):
        case = drawn_tiles(
            given.folder, seed=given.seed, section=section, number=number, patients=given.cases, tile_px=given.tile_px
        )
        tiles += judged(case, quality)
    print(f"{section}, seed {given.seed}, {given.cases} patients, tiles of {given.tile_px} px at 0.5 µm per px")
    report(tiles)


if __name__ == "__main__":
    main()
