"""What the runs took, beside what was expected before they began."""

from __future__ import annotations

from collections.abc import Sequence

from hepipe.models.rates import accounts
from hepipe.report.gather import Gathered
from hepipe.report.html import Content, Html, join, missing, table, tag
from hepipe.report.words import disk_in_words, time_in_words
from hepipe.stores.costs import Cost

SAID = (
    "Wall time from the first step or tile to the last, with loading, validation and pictures; what killed jobs had "
    "spent counts. Device-hours are wall time by the GPUs or CPU cores that a job took. `Before` is what was expected "
    "when the job began, from runs and benchmarks that were finished then."
)


def costs(found: Gathered) -> Html:
    """A row for each training and each prediction of the report's runs."""
    runs = {run.name for run in found.runs}
    known = [cost for cost in accounts(found.results / "runs") if cost.run in runs]
    if not known:
        return missing("No run of this report has an account of what it took.")
    order = {run.name: place for place, run in enumerate(found.runs)}
    known.sort(key=lambda cost: (order[cost.run], cost.workload.stage == "predict"))
    on_gpu = any(cost.device_mb is not None for cost in known)
    rows = [_row(cost, on_gpu=on_gpu) for cost in known]
    head: list[Content] = ["run", "job", "before", "took", "device-hours", "a step or tile", "memory"]
    head += ["GPU memory", "disk"] if on_gpu else ["disk"]
    parts = [tag("p", SAID, class_="quiet"), table(head, rows, numeric_from=2), _sum(known)]
    without = [name for name in order if name not in {cost.run for cost in known}]
    if without:
        parts.append(tag("p", f"Without an account: {', '.join(without)}.", class_="note"))
    return join(parts)


def _row(cost: Cost, *, on_gpu: bool) -> list[Content]:
    work = cost.workload
    job = f"train, {cost.n_units:,} {work.unit}s" if work.stage == "train" else f"predict, {cost.n_units:,} tiles"
    cores = "1 core" if work.units_at_once == 1 else f"{work.units_at_once} cores"
    taken = f"{work.processes} × {work.machine}" if work.device == "cuda" else f"{work.machine}, {cores}"
    sessions = "" if len(cost.sessions) < 2 else f"in {len(cost.sessions)} sessions"
    state = sessions if cost.finished else ", ".join(part for part in (sessions, "not finished") if part)
    each = cost.seconds_a_unit
    # Why nothing was known is long; it stands in the tooltip.
    ground = cost.expected.ground if cost.expected.wall_s is not None else cost.expected.ground.partition(":")[0]
    return [
        tag("b", cost.run),
        tag("div", job, tag("small", f"{work.model}, {work.preset}; {taken}"), class_="run"),
        join(
            [
                time_in_words(cost.expected.wall_s),
                " ",
                tag("small", ground, class_="ground", title=cost.expected.ground),
            ]
        ),
        join([time_in_words(cost.wall_s), " ", tag("small", state) if state else None]),
        f"{cost.device_hours:.3g}",
        "–" if each is None else join([f"{each:.3g}\N{NO-BREAK SPACE}s", " ", tag("small", f"a {work.unit}")]),
        disk_in_words(cost.memory_mb * 1e6) if cost.sessions else "–",
        *([] if not on_gpu else ["–" if cost.device_mb is None else disk_in_words(cost.device_mb * 1e6)]),
        disk_in_words(cost.disk_bytes),
    ]


def _sum(known: Sequence[Cost]) -> Html:
    said = []
    for device, name in (("cuda", "GPU-hours"), ("cpu", "CPU core-hours")):
        hours = [cost.device_hours for cost in known if cost.workload.device == device]
        if hours:
            said.append(f"{sum(hours):.3g} {name}")
    disk = sum(cost.disk_bytes or 0 for cost in known)
    return tag("p", f"In all {', '.join(said)}; {disk_in_words(disk)} of models and virtual tiles.")
