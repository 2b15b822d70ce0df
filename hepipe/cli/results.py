"""Commands about results: measure a run's virtual tiles, write the report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from hepipe.cli.options import InPath, OutPath, SpecJson


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (score, report):
        app.command()(command)


def score(
    config: InPath,
    dataset: Annotated[str, typer.Option(help="Name of the data set.")],
    split: Annotated[str, typer.Option(help="train, val or test.")],
    index: InPath,
    virtual: InPath,
    scores: OutPath,
    spec: SpecJson = "{}",
    trained: Annotated[
        list[Path] | None,
        typer.Option(
            help="Index that the run, or one that it builds on, was trained on: what these tiles share with it."
        ),
    ] = None,
) -> None:
    """Measure the virtual tiles of one run on one split."""
    import torch

    from hepipe.dataset.shared import shared_tiles
    from hepipe.errors import ConfigError
    from hepipe.evaluation.features import networks
    from hepipe.evaluation.pairs import PairedTiles
    from hepipe.evaluation.score import score_run
    from hepipe.metrics.catalog import check_primary
    from hepipe.models.resolved import read_resolved
    from hepipe.progress import watched
    from hepipe.specs.dataset import Split
    from hepipe.specs.training import EvaluationSpec
    from hepipe.stores.provenance import Provenance, digest
    from hepipe.stores.tables import SCORES, write_table

    # One thread: the last digits of a convolution depend on their number.
    torch.set_num_threads(1)
    run = read_resolved(config)
    evaluation = EvaluationSpec.model_validate_json(spec)
    check_primary(evaluation.primary)
    if (dataset, split) == (run.dataset, "train"):
        raise ConfigError(f"--split train: run {run.name} trains on these tiles of {dataset}; val or test expected")
    pairs = PairedTiles(index, split, virtual)
    at_hand = networks()
    rows = score_run(
        watched(pairs, f"score {run.name} on {dataset}/{split}", total=len(pairs), unit="tile"),
        run=run.name,
        dataset=dataset,
        split=split,
        spec=evaluation,
        networks=at_hand,
    )
    made_of = {"virtual": digest(pairs.predicted_with.model_dump(mode="json")), **at_hand.hashes}
    colours = run.training.normalize.ihc
    told: dict[str, Any] = (
        {} if colours == "none" else {"compared": f"drawn in IHC colours normalised by {colours}, with IHC as stored"}
    )
    notes = [f"run {run.name}: {note}" for note in told.values()]
    if pairs.predicted_with.spec:
        told["prediction"] = pairs.predicted_with.spec
    if trained:
        is_chosen = run.training.select.metric != "last"
        shared = shared_tiles(index, cast(Split, split), trained, is_chosen=is_chosen)
        told["shared"] = shared.model_dump(mode="json")
        notes += [f"run {run.name} on {dataset}/{split}: {shared.line()}"] if shared.n_trained else []
    provenance = Provenance(
        artefact="scores", subject=run.name, spec=evaluation.model_dump(mode="json"), inputs=made_of, told=told
    )
    write_table(rows, scores, SCORES, provenance)
    for reason in [*at_hand.missing.values(), *notes]:
        typer.echo(reason, err=True)
    typer.echo(f"{run.name} on {dataset}/{split}: {len(pairs)} tiles measured", err=True)


def report(
    results: InPath,
    spec: SpecJson,
    page: OutPath,
    status: OutPath,
    tables: OutPath,
) -> None:
    """Write one page on all data sets, cases and runs, the status table and every table as CSV."""
    from hepipe.report.page import write_report
    from hepipe.report.spec import ReportSpec

    written = write_report(results, ReportSpec.model_validate_json(spec), page=page, status=status, tables=tables)
    typer.echo(written, err=True)
