"""The curves of every run."""

from __future__ import annotations

from hepipe.models.resolved import ResolvedRun
from hepipe.report.figures import line_chart
from hepipe.report.gather import Gathered, RunView
from hepipe.report.html import Content, Html, facts, join, missing, tag

MAX_CURVES = 6


def training(found: Gathered) -> Html:
    """Curves of every run."""
    if not found.runs:
        return missing("No run was asked for.")
    return join(_curves(run) for run in found.runs)


def _curves(run: RunView) -> Html:
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in run.history:
        series.setdefault((row["phase"], row["name"]), []).append((float(row["step"]), float(row["value"])))
    losses = {
        name: points
        for (phase, name), points in series.items()
        if phase == "train" and len(points) > 1 and not _is_side_note(name)
    }
    validation = {name: points for (phase, name), points in series.items() if phase == "val" and len(points) > 1}
    charts = [
        line_chart({name: points}, x_label="step", y_label=name) for name, points in list(losses.items())[:MAX_CURVES]
    ]
    charts += [
        line_chart({name: points}, x_label="step", y_label=f"{name}, validation") for name, points in validation.items()
    ]
    record = run.record
    about: dict[str, Content] = {}
    if record is not None:
        select = record.training.select.metric
        about["model"] = f"{record.model}, preset {record.preset}"
        about["trained on"] = record.dataset
        about["steps"] = _length(run, record)
        about["checkpoint"] = "the last" if select == "last" else f"best {select} on the validation tiles"
        about["seed"] = record.seed
        if run.notes:
            about["start"] = "; ".join(run.notes)
    content: Content = (
        tag("div", *charts, class_="charts") if charts else missing("Nothing to train, or no history yet.")
    )
    return tag("article", tag("h3", run.name), facts(about), content, class_="card")


def _length(run: RunView, record: ResolvedRun) -> str:
    """Steps and what they come to, as the trained run says; before that, what was asked for."""
    told = None if run.made is None else run.made.told.get("budget")
    if told is None:
        return str(record.training.n_steps)
    rule = str(told["rule"]).replace("_", " ")
    capped = ", cut short by most_steps" if told["capped"] else ""
    batches = f"{told['epochs']:g} passes over {told['n_tiles']:,} tiles in batches of {told['batch_size']}"
    return f"{told['n_steps']:,}: {batches}; {rule}{capped}"


def _is_side_note(name: str) -> bool:
    """Rows that are no loss: learning rate, gradient norm and skipped steps of a player (`generator.rate`)."""
    return name.rpartition(".")[2] in ("rate", "gradient", "skipped")
