import json

from typer.testing import CliRunner

from hepipe.cli import commands
from hepipe.cli.app import app
from hepipe.stores.tables import SCORES, read_provenance, read_table

commands.register(app)


def test_score_and_report_run_from_the_command_line(results, cohort, tmp_path):
    results.dataset("restained", cohort[:2], n_tiles=3).run("copy", "restained")
    run = results.folder / "runs" / "copy"
    scores = tmp_path / "scores.parquet"
    options = {
        "config": run / "config.json",
        "dataset": "restained",
        "split": "test",
        "index": results.folder / "restained" / "index.parquet",
        "virtual": run / "on" / "restained" / "test" / "virtual.zarr",
        "scores": scores,
        "spec": "{}",
    }
    call = ["score", *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
    outcome = CliRunner().invoke(app, call, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert "4 tiles measured" in outcome.output
    assert {row["run"] for row in read_table(scores, SCORES)} == {"copy"}
    made = read_provenance(scores)
    assert (made.artefact, made.subject) == ("scores", "copy")
    assert "virtual" in made.inputs

    other = json.loads((run / "config.json").read_text(encoding="utf-8"))
    other["training"]["normalize"]["ihc"] = "reinhard"
    (tmp_path / "other.json").write_text(json.dumps(other), encoding="utf-8")
    outcome = CliRunner().invoke(app, [*call, "--config", str(tmp_path / "other.json")], catch_exceptions=False)
    told = "drawn in IHC colours normalised by reinhard, with IHC as stored"
    assert f"run copy: {told}" in outcome.output
    assert (made.told, read_provenance(scores).told) == ({}, {"compared": told})

    refused = CliRunner().invoke(app, ["score", *call[1:-1], '{"primary": ["sim"]}'])
    assert str(refused.exception).startswith("evaluation.primary: no metric sim; there are mae, mse, psnr, ssim")

    call = ["report", "--results", str(results.folder), "--spec", json.dumps(results.spec)]
    call += ["--page", str(tmp_path / "r.html"), "--status", str(tmp_path / "s.tsv"), "--tables", str(tmp_path / "t")]
    outcome = CliRunner().invoke(app, call, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert "1 data sets, 2 cases, 1 runs" in outcome.output
    assert str(tmp_path) not in (tmp_path / "r.html").read_text(encoding="utf-8")
