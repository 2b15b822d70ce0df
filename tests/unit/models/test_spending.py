import pytest
import torch

from hepipe.models import spending as room
from hepipe.models.spending import machine_name, size_of, spending
from hepipe.stores.costs import Cost, Expected, Workload, read_cost

CPU = torch.device("cpu")


def fresh(key="k", ground="first"):
    workload = Workload(
        stage="train", model="cut", preset="tiny", unit="step", tiles_a_unit=2, side_px=64, device="cpu", threads=1
    )
    return Cost(run="a", key=key, workload=workload, n_units=4, expected=Expected(wall_s=1.0, ground=ground))


def test_what_was_spent_stands_there_with_the_size_of_what_was_made(tmp_path):
    made = tmp_path / "model"
    made.write_bytes(b"1234567")
    with spending(tmp_path / "cost.json", fresh(), device=CPU) as account:
        account.add(3)
        account.add()
    account.close(made)
    cost = read_cost(tmp_path / "cost.json")
    assert cost.finished
    assert (cost.sessions[0].units, cost.disk_bytes) == (4, 7)
    assert cost.memory_mb > 50  # an interpreter with torch
    assert cost.device_mb is None
    assert cost.wall_s > 0


def test_a_failed_training_has_spent_too_and_the_next_one_goes_on_with_its_account(tmp_path):
    path = tmp_path / "cost.json"

    def train_and_fail():
        with spending(path, fresh(), device=CPU) as account:
            account.add(2)
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        train_and_fail()
    assert not read_cost(path).finished
    with spending(path, fresh(ground="second"), device=CPU) as account:
        account.add(2)
    account.close(tmp_path / "nothing")
    cost = read_cost(path)
    assert [(session.units, session.ended) for session in cost.sessions] == [(2, False), (2, True)]
    assert cost.expected.ground == "first"


def test_other_work_and_a_finished_account_begin_anew(tmp_path):
    path = tmp_path / "cost.json"
    for key in ("k", "k", "other"):
        with spending(path, fresh(key), device=CPU) as account:
            account.add()
        account.close(path)
        assert len(read_cost(path).sessions) == 1


def test_a_process_that_is_killed_has_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SAY_EVERY_S", 0.0)
    with spending(tmp_path / "cost.json", fresh(), device=CPU) as account:
        account.add()
        assert read_cost(tmp_path / "cost.json").sessions[0].units == 1


def test_only_the_first_process_writes(tmp_path):
    with spending(None, fresh(), device=CPU) as account:
        account.add()
    account.close(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_machine_is_named_by_its_kind_not_its_host():
    import socket

    assert machine_name(CPU)
    assert socket.gethostname() not in machine_name(CPU)


def test_a_folder_weighs_what_its_files_weigh(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "one").write_bytes(b"123")
    (tmp_path / "two").write_bytes(b"45")
    assert size_of(tmp_path) == 5
    assert size_of(tmp_path / "gone") == 0
