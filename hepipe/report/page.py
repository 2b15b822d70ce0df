"""The page: one HTML file with everything in it."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from hepipe.metrics.catalog import METRICS
from hepipe.report import sections
from hepipe.report.cost_section import costs
from hepipe.report.curves import training
from hepipe.report.elsewhere import published
from hepipe.report.filters import filters
from hepipe.report.folds import folds_of, with_folds_joined
from hepipe.report.gather import Gathered, gather
from hepipe.report.html import join, tag
from hepipe.report.leaderboard import SECONDARY, board
from hepipe.report.parts import part, style
from hepipe.report.spec import ReportSpec
from hepipe.report.tables import STATUS_COLUMNS, status_rows, write_rows, write_tables

APART = ("stand-in features", "published features")
RESEARCH_ONLY = "Research use only. Not a diagnostic test."


def write_report(results: Path, spec: ReportSpec, *, page: Path, status: Path, tables: Path) -> str:
    """Write the page, the status table and the CSV tables; returns a line on what was written.

    Args:
        results: The results folder.
        spec: What the report is about.
        page: HTML file.
        status: TSV file.
        tables: Folder of CSV files.
    """
    found = gather(results, spec)
    records = {run.name: run.record for run in found.runs}
    cards = {dataset.name: dataset.card for dataset in found.datasets}
    found.tests[:] = [with_folds_joined(test, records, folds_of(cards.get(test.dataset))) for test in found.tests]
    boards = {(test.dataset, test.split): _boards(found, number) for number, test in enumerate(found.tests)}
    write_rows(status, STATUS_COLUMNS, status_rows(found), separator="\t")
    write_tables(tables, found, [(*key, of_test.every) for key, of_test in boards.items()])
    text = render(found, boards)
    page.parent.mkdir(parents=True, exist_ok=True)
    beside = page.with_name(f".{page.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, page)
    n_cases = sum(len(dataset.cases) for dataset in found.datasets)
    return f"report: {len(found.datasets)} data sets, {n_cases} cases, {len(found.runs)} runs, {len(text) / 1e6:.1f} MB"


def _boards(found: Gathered, number: int) -> sections.TestBoards:
    test, draws = found.tests[number], found.spec.bootstrap
    apart = {family: [m.name for m in METRICS.values() if m.family == family] for family in APART}
    aside = [name for names in apart.values() for name in names]
    main = [name for name in (*found.spec.primary, *SECONDARY) if name not in aside]
    return sections.TestBoards(
        main=board(test, main, draws=draws),
        stand_in=board(test, apart["stand-in features"], draws=draws),
        published=board(test, apart["published features"], draws=draws),
        every=board(test, list(METRICS), draws=draws),
    )


def render(found: Gathered, boards: sections.Boards) -> str:
    """The page as text."""
    parts = (
        ("overview", "Data sets", sections.overview(found)),
        ("leaderboard", "Leaderboard", sections.leaderboard(found, boards)),
        ("published", "Reported elsewhere", published(found, boards)),
        *(
            [("ablations", "Ablations", sections.ablations(found, boards))]
            if any(test.is_ablation for test in found.tests)
            else []
        ),
        ("gallery", "Galleries", sections.galleries(found)),
        ("stain", "Stain per case", sections.per_case(found)),
        ("cases", "Cases and registration", sections.cases(found)),
        ("filters", "Filters", filters(found)),
        ("tiles", "Tiles and DAB masks", sections.tiles(found)),
        ("training", "Training", training(found)),
        ("cost", "Cost", costs(found)),
        ("provenance", "Provenance", sections.provenance(found, benchmark_times(found.results))),
    )
    links = join(tag("a", title, href=f"#{anchor}") for anchor, title, _ in parts)
    body = join(tag("section", tag("h2", title), content, id=anchor) for anchor, title, content in parts)
    head = tag(
        "header", tag("h1", found.spec.title), tag("p", RESEARCH_ONLY, class_="research"), tag("p", _counts(found))
    )
    foot = tag("footer", tag("p", RESEARCH_ONLY), tag("p", "Ids only: no names of slides, files or people."))
    zoom = tag("dialog", tag("img", alt=""), id="zoom")
    content = join([tag("nav", tag("b", "hepipe"), links), tag("main", head, body, foot), zoom])
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"{tag('title', found.spec.title)}<style>{style('report.css')}</style></head>"
        f"<body>{content}<script>{part('report.js')}</script></body></html>\n"
    )


def _counts(found: Gathered) -> str:
    n_cases = sum(len(dataset.cases) for dataset in found.datasets)
    n_failed = sum(case.status.failed for dataset in found.datasets for case in dataset.cases)
    failing = f", {n_failed} of them failed" if n_failed else ""
    return f"Data sets: {len(found.datasets)}. Cases: {n_cases}{failing}. Runs: {len(found.runs)}."


def benchmark_times(results: Path) -> list[tuple[str, int, float, float]]:
    """Rule, jobs, seconds in all and of the longest job, slowest rule first, from what Snakemake measured."""
    seconds: dict[str, list[float]] = {}
    for path in sorted((results / "benchmarks").glob("**/*.tsv")):
        rule = path.relative_to(results / "benchmarks").parts[0].removesuffix(".tsv")
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                try:
                    seconds.setdefault(rule, []).append(float(row["s"]))
                except (KeyError, TypeError, ValueError):
                    continue
    found = [(rule, len(times), sum(times), max(times)) for rule, times in seconds.items()]
    return sorted(found, key=lambda entry: -entry[2])
