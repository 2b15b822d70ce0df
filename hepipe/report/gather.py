"""What is on disk, read for the report. A missing piece is remarked and never stops the page.

Remarks name ids and stages only: an error's text may hold a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image

from hepipe.dataset.card import CardCase, DatasetCard, read_card
from hepipe.dataset.shared import Shared
from hepipe.errors import StoreError
from hepipe.models.resolved import ResolvedRun, read_resolved
from hepipe.quality.funnel import Funnel, read_funnel
from hepipe.report.spec import IMPORTED, ReportDataset, ReportSpec
from hepipe.specs.dataset import Split
from hepipe.status import CaseStatus, review
from hepipe.stores.arrays import read_registered
from hepipe.stores.cases import CheckedCase, read_checked
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import HISTORY, SCORES, read_provenance, read_table

Read = TypeVar("Read")
PICTURES = ("he", "ihc", "before", "after", "tissue")
CHOSEN = "checkpoint chosen on this split"
SUFFIXES = (".jpg", ".png")


@dataclass(frozen=True)
class CaseView:
    """One case as the report sees it."""

    case_id: str
    patient_id: str | None
    her2_score: str | None
    split: str | None
    n_tiles: int
    n_kept: int
    status: CaseStatus
    n_held: int = 0
    n_outside: int = 0


@dataclass(frozen=True)
class DatasetView:
    """One data set."""

    name: str
    spec: ReportDataset
    folder: Path
    card: DatasetCard | None
    cases: tuple[CaseView, ...]
    reasons: Mapping[str, int]
    """Why tiles were dropped, most frequent first."""
    funnel: Funnel | None = None

    @property
    def is_imported(self) -> bool:
        """Whether it was cut elsewhere."""
        return self.spec.cases == (IMPORTED,)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of its tile stores."""
        return self.spec.cases


@dataclass(frozen=True)
class RunView:
    """One run."""

    name: str
    folder: Path
    record: ResolvedRun | None
    history: list[dict[str, Any]]
    made: Provenance | None = None
    """Of its training: budget, code, data set; None until it has trained."""

    @property
    def notes(self) -> list[str]:
        """What it says of its start: from which weights, and what began untrained though it might not have."""
        return [] if self.made is None else [str(note) for note in self.made.told.get("notes", ())]


@dataclass(frozen=True)
class TestSet:
    """Scores of several runs on one split of one data set."""

    dataset: str
    split: Split
    scores: Mapping[str, RunScores]
    left_out: Mapping[str, str]
    """Run to why it is not compared."""
    joined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Run that stands for those of all folds to their names."""
    marks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Run to what a reader of its row must know."""
    unranked: frozenset[str] = frozenset()
    """Runs that are shown but not ranked with the others, for what their marks say."""

    @property
    def is_ablation(self) -> bool:
        """Whether it is a split for choosing among variants: never a leaderboard."""
        return self.split == "val"

    def runs_of(self, run: str) -> tuple[str, ...]:
        """The runs that drew its tiles: itself, or one a fold."""
        return self.joined.get(run, (run,))


@dataclass(frozen=True)
class RunScores:
    """The scores of one run on one set, by metric.

    Attributes:
        tiles: Metric to values, nan where not computed; one per tile id.
        tile_ids: Sorted.
        patients: Of each tile.
        cases: Of each tile.
        her2: Score of each tile's slide.
        of_set: Metric to value.
        of_case: Case to metric to value.
        reasons: Metric to the reasons of its missing values and how many there are.
        told: What the table says of how it was made.
    """

    tiles: Mapping[str, np.ndarray]
    tile_ids: list[str]
    patients: list[str | None]
    cases: list[str | None]
    her2: list[str | None]
    of_set: Mapping[str, float]
    of_case: Mapping[str, Mapping[str, float]]
    reasons: Mapping[str, Mapping[str, int]]
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Gathered:
    """Everything, and what was not there."""

    spec: ReportSpec
    results: Path
    datasets: list[DatasetView] = field(default_factory=list)
    runs: list[RunView] = field(default_factory=list)
    tests: list[TestSet] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def attempt(self, read: Callable[[], Read], remark: str) -> Read | None:
        """What `read` returns, or None and a remark."""
        try:
            return read()
        except (StoreError, OSError, KeyError, ValueError):
            self.remarks.append(remark)
            return None


def gather(results: Path, spec: ReportSpec) -> Gathered:
    """Read what the report needs but pictures."""
    found = Gathered(spec, results)
    for name, dataset in spec.datasets.items():
        found.datasets.append(_dataset(found, name, dataset))
    for name in spec.runs:
        found.runs.append(_run(found, name))
    sets: dict[tuple[str, Split], list[str]] = {}
    for name, run in spec.runs.items():
        for dataset_name, splits in run.test_on.items():
            for split in splits:
                sets.setdefault((dataset_name, split), []).append(name)
    records = {run.name: run.record for run in found.runs}
    notes = {run.name: run.notes for run in found.runs}
    for (dataset_name, split), names in sets.items():
        scores: dict[str, RunScores] = {}
        left_out: dict[str, str] = {}
        marks: dict[str, tuple[str, ...]] = {}
        unranked: set[str] = set()
        for name in names:
            reason = _unfit(records[name], dataset_name, split)
            path = results / "runs" / name / "on" / dataset_name / split / "scores.parquet"
            if reason is not None:
                left_out[name] = reason
                continue
            read = found.attempt(partial(read_scores, path), f"run {name}: not scored on {dataset_name}/{split}")
            if read is None:
                left_out[name] = "not scored yet"
                continue
            shared = shared_of(read)
            if split != "val" and shared.n_chosen:
                left_out[name] = f"{shared.n_chosen:,} of its tiles chose the checkpoint, in {spec.runs[name].dataset}"
                continue
            scores[name] = read
            outside = spec.runs[name].outside
            own = [CHOSEN] if _is_chosen(records[name], dataset_name, split) or shared.n_chosen else []
            own += [f"outside the protocol: {key} {values}" for key, values in outside.items()]
            own += [shared.line()] if shared.n_trained else []
            own += notes[name]
            marks |= {name: tuple(own)} if own else {}
            unranked |= {name} if outside or shared.n_trained else set()
        found.tests.append(TestSet(dataset_name, split, scores, left_out, marks=marks, unranked=frozenset(unranked)))
    return found


def shared_of(scores: RunScores) -> Shared:
    """What its tiles share with those the run was trained and chosen on, as its table tells."""
    told = scores.told.get("shared")
    return Shared(n_tiles=len(scores.tile_ids), trained={}) if told is None else Shared.model_validate(told)


def _unfit(record: ResolvedRun | None, dataset: str, split: Split) -> str | None:
    """Why a split cannot judge a run."""
    if record is not None and record.dataset == dataset and split == "train":
        return "trained on these tiles"
    return None


def _is_chosen(record: ResolvedRun | None, dataset: str, split: Split) -> bool:
    """Whether a split chose a run's checkpoint."""
    if record is None or record.dataset != dataset:
        return False
    return split == "val" and record.training.select.metric != "last"


def read_scores(path: Path) -> RunScores:
    """A run's score table by metric."""
    made = read_provenance(path)
    if made.artefact != "scores":
        raise StoreError(f"{path}: holds {made.artefact}, scores expected")
    table = pq.read_table(path, columns=SCORES.names)
    columns: dict[str, list[Any]] = {
        name: table[name].to_pylist() for name in ("case_id", "patient_id", "her2_score", "tile_id", "status")
    }
    metrics: list[Any] = table["metric"].to_pylist()
    values = np.array([np.nan if value is None else value for value in table["value"].to_pylist()], np.float64)
    place: dict[str, int] = {}
    first: list[int] = []
    for row, tile_id in enumerate(columns["tile_id"]):
        if tile_id is not None and tile_id not in place:
            place[tile_id] = len(first)
            first.append(row)
    tiles: dict[str, np.ndarray] = {}
    of_set: dict[str, float] = {}
    of_case: dict[str, dict[str, float]] = {}
    reasons: dict[str, Counter[str]] = {}
    for row, (metric, tile_id, case_id) in enumerate(zip(metrics, columns["tile_id"], columns["case_id"], strict=True)):
        if tile_id is not None:
            tiles.setdefault(metric, np.full(len(first), np.nan))[place[tile_id]] = values[row]
        elif case_id is not None:
            of_case.setdefault(case_id, {})[metric] = float(values[row])
        else:
            of_set[metric] = float(values[row])
        if columns["status"][row] != "ok" and (tile_id is not None or case_id is None):
            reasons.setdefault(metric, Counter())[columns["status"][row]] += 1
    return RunScores(
        tiles=tiles,
        tile_ids=list(place),
        patients=[columns["patient_id"][row] for row in first],
        cases=[columns["case_id"][row] for row in first],
        her2=[columns["her2_score"][row] for row in first],
        of_set=of_set,
        of_case=of_case,
        reasons=reasons,
        told=made.told,
    )


def _run(found: Gathered, name: str) -> RunView:
    folder = found.results / "runs" / name
    record = found.attempt(lambda: read_resolved(folder / "config.json"), f"run {name}: not configured")
    history = found.attempt(lambda: read_table(folder / "history.parquet", HISTORY), f"run {name}: not trained yet")
    made = None if history is None else read_provenance(folder / "history.parquet")
    return RunView(name, folder, record, history or [], made)


def _dataset(found: Gathered, name: str, spec: ReportDataset) -> DatasetView:
    folder = found.results / name
    card = found.attempt(lambda: read_card(folder / "dataset.json"), f"data set {name}: not assembled")
    known = {} if card is None else {case.case_id: case for case in card.cases}
    wanted = [*spec.cases] if spec.cases != (IMPORTED,) else list(known)
    cases = [_case(known.get(case_id), case_id) for case_id in wanted]
    if spec.cases == (IMPORTED,) and not cases:
        n_tiles, n_kept = (0, 0) if card is None else (card.n_tiles, card.n_kept)
        status = review("dataset", "not assembled") if card is None else card.provenance.status
        cases.append(CaseView(IMPORTED, None, None, None, n_tiles, n_kept, status))
    reasons: Counter[str] = Counter()
    for part in spec.cases:
        verdict = folder / "verdict" / f"{part}.parquet"
        if verdict.is_file():
            dropped = pq.read_table(verdict, columns=["keep", "reason"], filters=[("keep", "=", False)])
            reasons.update(str(reason) for reason in dropped["reason"].to_pylist())
    funnel = found.attempt(lambda: read_funnel(folder / "funnel.json"), f"data set {name}: its funnel is not counted")
    return DatasetView(name, spec, folder, card, tuple(cases), dict(reasons.most_common()), funnel)


def _case(known: CardCase | None, case_id: str) -> CaseView:
    if known is None:
        return CaseView(case_id, None, None, None, 0, 0, review("dataset", "not in the assembled data set"))
    return CaseView(
        case_id,
        known.patient_id,
        known.her2_score,
        known.split,
        known.n_tiles,
        known.n_kept,
        known.status,
        known.n_held,
        known.n_outside,
    )


def checked_of(dataset: DatasetView, case_id: str) -> CheckedCase | None:
    """Properties of a case's slides."""
    try:
        return read_checked(dataset.folder / "checked" / f"{case_id}.json")
    except StoreError:
        return None


def registration_of(dataset: DatasetView, case_id: str) -> Mapping[str, Any]:
    """How a case's registration went; empty when it never ran."""
    try:
        return read_registered(dataset.folder / "registered" / f"{case_id}.zarr").summary
    except (StoreError, KeyError):
        return {}


def pictures_of(dataset: DatasetView, case_id: str) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """The pictures of a case that exist and can be read."""
    found = {}
    for name in PICTURES:
        for suffix in SUFFIXES:
            path = dataset.folder / "pictures" / case_id / f"{name}{suffix}"
            if path.is_file():
                try:
                    with Image.open(path) as picture:
                        found[name] = np.asarray(picture.convert("RGB"))
                except OSError:
                    continue
                break
    return found
