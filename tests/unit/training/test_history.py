import pyarrow.parquet as pq
import pytest
import torch

from hepipe.errors import HepipeError
from hepipe.stores.provenance import Provenance
from hepipe.training.history import History, _Noted
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
    with pytest.raises(HepipeError, match=r"run r: g\.contrast became inf at step 5"):
        history.note(5, {"g.contrast": torch.tensor(float("inf")), "g.loss": torch.tensor(float("nan"))})


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
    now = iter([0.0, 5.0, 15.0, 45.0, 55.0])
    monkeypatch.setattr("hepipe.training.progress.time.monotonic", lambda: next(now))
    monkeypatch.setattr(Meter, "_memory", lambda self: "1.5 GB")
    meter = Meter(name="r", n_steps=10, device=torch.device("cpu"))
    meter.begin(0)
    meter.terms({"g.loss": 0.5, "g.rate": 1.0})
    meter.tick(1, 4)
    meter.tick(4, 12)
    meter.tick(10, 24)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "r: step 4/10 0.4 img/s eta 1:00 1.5 GB g.loss 0.5",
        "r: step 10/10 0.8 img/s eta 0:00 1.5 GB g.loss 0.5",
    ]


def test_a_log_tells_the_most_memory_and_a_quiet_process_tells_nothing(capsys):
    for quiet in (False, True):
        meter = Meter(name="r", n_steps=1, device=torch.device("cpu"), quiet=quiet)
        meter.begin(0)
        meter.tick(1, 4)
        meter.say("word")
    (line, word) = capsys.readouterr().err.splitlines()
    assert 0 < float(line.split()[-2]) < 1000
    assert line.endswith(" GB")
    assert word == "r: word"


def test_the_term_that_failed_is_named_before_the_loss_and_the_gradient():
    history = History("r")
    nan = torch.tensor(float("nan"))
    with pytest.raises(HepipeError, match=r"g\.contrast became nan at step 7"):
        history.note(7, {"g.adversarial": torch.tensor(1.0), "g.contrast": nan, "g.loss": nan, "g.gradient": nan})


def test_a_gradient_that_is_not_finite_is_an_error_though_the_loss_is():
    with pytest.raises(HepipeError, match=r"the gradient of g, whose loss terms are finite, became inf at step 7"):
        History("r").note(7, {"g.loss": torch.tensor(1.0), "g.gradient": torch.tensor(float("inf"))})


class Coming:
    """Stands for the event of a copy from a GPU."""

    def __init__(self, *, here):
        self.here = here

    def query(self):
        return self.here

    def synchronize(self):
        self.here = True


def test_terms_on_their_way_from_a_gpu_are_looked_at_when_they_have_come_and_at_the_latest_for_a_row():
    history, event = History("r"), Coming(here=False)
    history._coming.append(_Noted(3, ("g.loss",), torch.tensor([float("nan")]), event))
    history.note(4, {"g.loss": torch.tensor(1.0)})
    event.here = True
    with pytest.raises(HepipeError, match=r"g\.loss became nan at step 3"):
        history.note(5, {"g.loss": torch.tensor(1.0)})

    history = History("r")
    history._coming.append(_Noted(3, ("g.loss",), torch.tensor([float("nan")]), Coming(here=False)))
    with pytest.raises(HepipeError, match=r"g\.loss became nan at step 3"):
        history.flush(4)


def test_events_of_a_killed_training_are_not_shown_twice(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    killed = History("r", events=tmp_path)
    for step in (2, 4):
        killed.add(step, "train", {"loss": 1.0})
    state = {**killed.state(), "steps": torch.tensor([2]), "values": torch.tensor([1.0])}
    state |= {"names": ["loss"], "phases": ["train"]}
    killed._events.close()
    resumed = History("r", events=tmp_path)
    resumed.load(state)
    for step in (4, 6):
        resumed.add(step, "train", {"loss": 2.0})
    resumed._events.close()
    shown = accumulator.EventAccumulator(str(tmp_path)).Reload().Scalars("train/loss")
    assert [(event.step, event.value) for event in shown] == [(2, 1.0), (4, 2.0), (6, 2.0)]
