import pyarrow.parquet as pq
import pytest
import torch

from hepipe.errors import HepipeError
from hepipe.stores.provenance import Provenance
from hepipe.training.history import History
from hepipe.training.progress import Meter


def test_terms_are_averaged_between_two_rows():
    history = History("r")
    for step, value in enumerate([1.0, 2.0, 6.0]):
        history.note(step, {"g.loss": torch.tensor(value)})
    assert history.flush(3) == {"g.loss": 3.0}
    assert history.flush(4) == {}
    assert list(history.rows()) == [{"step": 3, "phase": "train", "name": "g.loss", "value": 3.0}]


def test_the_first_term_that_is_not_finite_is_named():
    history = History("r")
    history.note(4, {"g.loss": torch.tensor(1.0)})
    history.note(5, {"g.contrast": torch.tensor(float("inf")), "g.loss": torch.tensor(float("nan"))})
    with pytest.raises(HepipeError, match=r"run r: g\.contrast became inf at step 5"):
        history.flush(6)


def test_a_history_goes_on_from_a_resume_file_and_into_a_table(tmp_path):
    history = History("r")
    history.add(2, "val", {"ssim": 0.5})
    torch.save(history.state(), tmp_path / "state.pt")
    other = History("r")
    other.load(torch.load(tmp_path / "state.pt", weights_only=True))
    other.add(4, "val", {"ssim": 0.75})
    other.write(tmp_path / "history.parquet", Provenance(artefact="history", subject="r"))
    values = pq.read_table(tmp_path / "history.parquet").to_pylist()
    assert [(row["step"], row["value"]) for row in values] == [(2, 0.5), (4, 0.75)]


def test_events_are_written_when_asked_for(tmp_path):
    pytest.importorskip("tensorboard")
    history = History("r", events=tmp_path / "events")
    history.add(2, "val", {"ssim": 0.5})
    history.write(tmp_path / "history.parquet", Provenance(artefact="history", subject="r"))
    assert any(path.stat().st_size for path in (tmp_path / "events").iterdir())


def test_a_log_says_where_a_training_stands(capsys, monkeypatch):
    now = iter([0.0, 10.0, 40.0, 50.0])
    monkeypatch.setattr("hepipe.training.progress.time.monotonic", lambda: next(now))
    meter = Meter(name="r", start=0, n_steps=10)
    meter.terms({"g.loss": 0.5, "g.rate": 1.0})
    meter.tick(1, 4)
    meter.tick(4, 12)
    meter.tick(10, 24)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["r: step 4/10 0.4 img/s eta 1:00 g.loss 0.5", "r: step 10/10 0.8 img/s eta 0:00 g.loss 0.5"]
