"""Pictures of tiles: which ones are shown follows a rule that the page states, never a hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from hepipe.errors import StoreError
from hepipe.metrics.catalog import METRICS, Metric
from hepipe.report.figures import with_outline
from hepipe.report.gather import DatasetView, RunScores, TestSet
from hepipe.report.html import Content, Html, figure, fold, image, join, tag
from hepipe.sheet import SCORES
from hepipe.stores.tables import TILES, VERDICTS, read_table
from hepipe.stores.tiles import TileStore

PERCENTILES = (50, 10, 90)
N_WORST, N_RANDOM = 2, 2
SEED = 7
TILE_PX = 216
SMALL_PX = 120
MAX_RUNS = 8
KEPT_SHOWN = 12
DROPPED_SHOWN = 4
MAX_REASONS = 10
MAX_PARTS = 24
MASKS_SHOWN = 6
FALLBACK = ("ssim", "mae")


@dataclass(frozen=True)
class Chosen:
    """A tile of the gallery, why it is there, and whether it is shown at once."""

    tile_id: str
    why: str
    at_once: bool


def choosing_metric(tests: TestSet, primary: Sequence[str]) -> Metric | None:
    """The first primary metric that has values per tile; SSIM, then MAE where none has."""
    for name in (*primary, *FALLBACK):
        metric = METRICS.get(name)
        if metric is None or metric.level != "tile" or metric.better == "neither":
            continue
        if any(np.isfinite(scores.tiles.get(name, np.array([]))).any() for scores in tests.scores.values()):
            return metric
    return None


def choose(tests: TestSet, metric: Metric) -> list[Chosen]:
    """Tiles by rule: per HER2 score the 50th, 10th and 90th percentile, then the worst, then random ones.

    The metric is averaged over the runs first, so that all runs show the same tiles.
    """
    first = next(iter(tests.scores.values()))
    by_run = [_in_order(scores, metric.name, first.tile_ids) for scores in tests.scores.values()]
    stacked = np.ma.masked_invalid(np.stack(by_run))
    values = stacked.mean(axis=0).filled(np.nan)
    goodness = -values if metric.better == "lower" else values
    usable = [place for place in range(len(values)) if np.isfinite(values[place])]
    usable.sort(key=lambda place: (goodness[place], first.tile_ids[place]))
    chosen: dict[str, Chosen] = {}
    for score in [*SCORES, None]:
        group = [place for place in usable if first.her2[place] == score]
        for percentile in PERCENTILES if group else ():
            place = group[round((len(group) - 1) * percentile / 100)]
            label = "score unknown" if score is None else f"HER2 {score}"
            why = f"{label}, {percentile}th percentile"
            chosen.setdefault(first.tile_ids[place], Chosen(first.tile_ids[place], why, percentile == 50))
    for place in usable[:N_WORST]:
        chosen.setdefault(first.tile_ids[place], Chosen(first.tile_ids[place], "among the worst", True))
    rest = [place for place in usable if first.tile_ids[place] not in chosen]
    for pick in np.random.default_rng(SEED).permutation(len(rest))[:N_RANDOM]:
        tile_id = first.tile_ids[rest[pick]]
        chosen[tile_id] = Chosen(tile_id, "random", False)
    return list(chosen.values())


def _drawn_at(tests: TestSet, run: str, runs_folder: Mapping[str, Any]) -> dict[str, tuple[TileStore, int]]:
    """Tile to the store that holds it and its place there; several stores where folds are joined."""
    found = {}
    for name in tests.runs_of(run):
        store = TileStore(runs_folder[name] / "on" / tests.dataset / tests.split / "virtual.zarr", "virtual")
        found.update({str(tile): (store, place) for place, tile in enumerate(store.attributes["tile_ids"])})
    return found


def gallery(dataset: DatasetView, tests: TestSet, metric: Metric, runs_folder: Mapping[str, Any]) -> Html:
    """A row per chosen tile: H&E, real IHC, then what each run drew.

    Raises:
        StoreError: A store that the scores were made from is gone.
    """
    picked = choose(tests, metric)
    columns = ["tile_id", "case_id", "her2_score", "store", "row_in_store"]
    ids = [chosen.tile_id for chosen in picked]
    table = pq.read_table(dataset.folder / "index.parquet", columns=columns, filters=[("tile_id", "in", ids)])
    index = {row["tile_id"]: row for row in table.to_pylist()}
    shown = list(tests.scores)[:MAX_RUNS]
    drawn_at = {run: _drawn_at(tests, run, runs_folder) for run in shown}
    stores: dict[str, TileStore] = {}
    rows: dict[bool, list[Html]] = {True: [], False: []}
    for chosen in picked:
        row = index[chosen.tile_id]
        store = stores.setdefault(row["store"], TileStore(dataset.folder / row["store"]))
        pictures: list[Content] = [
            figure(_shown(store.read(name, row["row_in_store"]), f"{label} of {chosen.tile_id}"), label)
            for name, label in (("he", "H&E"), ("ihc", "real IHC"))
        ]
        for run in shown:
            virtual, place = drawn_at[run][chosen.tile_id]
            drawn = virtual.read("virtual", place)
            caption = join([tag("b", run), *_values(tests.scores[run], chosen.tile_id, metric)], " ")
            pictures.append(figure(_shown(drawn, f"{run} of {chosen.tile_id}"), caption, class_="virtual"))
        note = [tag("b", chosen.why), row["case_id"], f"HER2 {row['her2_score']}" if row["her2_score"] else None]
        rows[chosen.at_once].append(
            tag("div", tag("p", join([n for n in note if n], " · "), class_="why"), *pictures, class_="strip")
        )
    left = len(tests.scores) - len(shown)
    tail = tag("p", f"{left} further runs are in the tables only.", class_="quiet") if left > 0 else Html("")
    more = fold(f"{len(rows[False])} further tiles: 10th and 90th percentiles, random", *rows[False])
    return join([tag("div", *rows[True], more if rows[False] else None, class_="gallery"), tail])


def contact_sheet(dataset: DatasetView) -> Html:
    """Some kept tiles, evenly over the cases, and some dropped ones per reason, most frequent reason first."""
    kept: list[Html] = []
    dropped: dict[str, list[Html]] = {reason: [] for reason in list(dataset.reasons)[:MAX_REASONS]}
    parts = _evenly(dataset.parts, MAX_PARTS)
    per_part = -(-KEPT_SHOWN // max(len(parts), 1))
    for part in parts:
        try:
            tiles = {row["tile_id"]: row for row in read_table(dataset.folder / "tiles" / f"{part}.parquet", TILES)}
            verdicts = read_table(dataset.folder / "verdict" / f"{part}.parquet", VERDICTS)
            store = TileStore(dataset.folder / "tiles" / f"{part}.zarr")
        except StoreError:
            continue
        for verdict in _evenly([row for row in verdicts if row["keep"]], per_part):
            if len(kept) < KEPT_SHOWN:
                kept.append(_pair(store, tiles[verdict["tile_id"]]))
        for reason, places in dropped.items():
            failing = [row for row in verdicts if not row["keep"] and row["reason"] == reason]
            for verdict in _evenly(failing, 2):
                if len(places) < DROPPED_SHOWN:
                    places.append(_pair(store, tiles[verdict["tile_id"]]))
    groups = [("kept", f"{KEPT_SHOWN} at most, evenly over cases", kept)]
    groups += [(f"dropped: {reason}", f"{dataset.reasons[reason]} tiles", shown) for reason, shown in dropped.items()]
    blocks = [
        tag("div", tag("h4", title, " ", tag("small", count)), tag("div", *shown, class_="sheet"), class_="group")
        for title, count, shown in groups
        if shown
    ]
    return tag("div", *blocks, class_="contact") if blocks else Html("")


def dab_masks(dataset: DatasetView) -> Html:
    """H&E, IHC and the outline of its DAB mask, for kept tiles spread over the HER2 scores.

    Raises:
        StoreError: A store of the index is gone.
    """
    path = dataset.folder / "index.parquet"
    if not path.is_file():
        return Html("")
    columns = pq.read_table(path, columns=["tile_id", "her2_score", "store", "row_in_store", "case_id"]).to_pylist()
    rows = []
    for score in [None, *SCORES]:
        rows += _evenly([row for row in columns if row["her2_score"] == score], 2 if score else MASKS_SHOWN)
    blocks = []
    for row in _evenly(rows, 8):
        store = TileStore(dataset.folder / row["store"])
        if "dab_mask" not in store.names():
            continue
        ihc, mask = store.read("ihc", row["row_in_store"]), store.read_mask("dab_mask", row["row_in_store"])
        he = store.read("he", row["row_in_store"])
        label = f"HER2 {row['her2_score']}" if row["her2_score"] else "score unknown"
        pictures = (
            figure(_shown(he, f"H&E of {row['tile_id']}"), "H&E"),
            figure(_shown(ihc, f"IHC of {row['tile_id']}"), "IHC"),
            figure(_shown(with_outline(ihc, mask), f"DAB mask of {row['tile_id']}"), f"DAB mask, {mask.mean():.1%}"),
        )
        why = tag("p", join([n for n in (tag("b", label), row["case_id"]) if n], " · "), class_="why")
        blocks.append(tag("div", why, *pictures, class_="strip"))
    return tag("div", *blocks, class_="gallery masks") if blocks else Html("")


def _pair(store: TileStore, row: Mapping[str, Any]) -> Html:
    he, ihc = (store.read(name, row["row_in_store"]) for name in ("he", "ihc"))
    both = np.concatenate([he, ihc], axis=1)
    return tag("span", image(both, alt=f"H&E and IHC of {row['tile_id']}", longest_px=2 * SMALL_PX))


def _shown(tile: np.ndarray, alt: str) -> Html:
    return image(tile, alt=alt, longest_px=TILE_PX)


def _values(scores: RunScores, tile_id: str, metric: Metric) -> Iterator[Html]:
    place = scores.tile_ids.index(tile_id)
    names = dict.fromkeys([metric.name, "ssim", "dab_dice"])
    for name in names:
        value = float(scores.tiles[name][place]) if name in scores.tiles else float("nan")
        if np.isfinite(value):
            yield tag("span", f"{METRICS[name].title} {value:.2f}")


def _in_order(scores: RunScores, metric: str, tile_ids: Sequence[str]) -> np.ndarray:
    place = {tile_id: at for at, tile_id in enumerate(scores.tile_ids)}
    values = scores.tiles.get(metric)
    if values is None:
        return np.full(len(tile_ids), np.nan)
    return np.array([values[place[tile]] if tile in place else np.nan for tile in tile_ids])


def _evenly(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` items, spread over the whole list."""
    if len(items) <= count:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, count)]


def review_link(dataset: DatasetView) -> Html:
    """The way to the page of the pairs that need a person, where there is one."""
    if not (dataset.folder / "review.html").is_file():
        return Html("")
    return tag("small", tag("a", "review and landmarks", href=f"{dataset.folder.name}/review.html"))
