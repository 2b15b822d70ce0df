import pytest
import torch

from hepipe.training.resume import ResumeFolder

CPU = torch.device("cpu")


def state(value):
    return {"weights": {"w": torch.tensor([value])}, "best_step": None}


def test_nothing_to_go_on_from(tmp_path):
    assert ResumeFolder(tmp_path / "resume", key="k").load(CPU, say=print) is None


def test_the_newest_state_comes_back_and_older_files_go(tmp_path):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save(5, state(1.0), best_step=None)
    folder.save(10, state(2.0), best_step=None)
    found = folder.load(CPU, say=print)
    assert (found["step"], found["weights"]["w"].item()) == (10, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010-rank0.pt"]


def test_a_step_counts_only_when_every_process_has_written_it(tmp_path):
    both = [ResumeFolder(tmp_path, key="k", rank=rank, n_ranks=2) for rank in range(2)]
    both[1].save(5, state(1.0), best_step=None)
    assert both[0].load(CPU, say=print) is None
    torch.save({**state(0.0), "step": 5, "key": "k", "n_ranks": 2}, tmp_path / "step-00000005-rank0.pt")
    torch.save({**state(0.0), "step": 10, "key": "k", "n_ranks": 2}, tmp_path / "step-00000010-rank0.pt")
    assert both[0].load(CPU, say=print)["step"] == both[1].load(CPU, say=print)["step"] == 5


def test_another_key_or_number_of_processes_is_not_continued(tmp_path):
    ResumeFolder(tmp_path, key="k").save(5, state(1.0), best_step=None)
    assert ResumeFolder(tmp_path, key="other").load(CPU, say=print) is None
    torch.save({**state(0.0), "step": 5, "key": "k", "n_ranks": 1}, tmp_path / "step-00000005-rank1.pt")
    assert ResumeFolder(tmp_path, key="k", rank=0, n_ranks=2).load(CPU, say=print) is None


def test_the_best_weights_outlive_the_files_of_other_steps(tmp_path):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save_best(4, {"w": torch.tensor([4.0])})
    folder.save_best(8, {"w": torch.tensor([8.0])})
    folder.save(10, state(2.0), best_step=4)
    assert folder.load_best(4)["w"].item() == 4.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best-00000004.safetensors", "step-00000010-rank0.pt"]
    folder.clear()
    assert not tmp_path.exists()


def test_a_file_left_half_written_by_a_kill_is_no_state(tmp_path):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save(5, state(1.0), best_step=None)
    (tmp_path / ".step-00000010-rank0.pt.123").write_bytes(b"half")
    assert folder.load(CPU, say=print)["step"] == 5
    folder.save(15, state(1.0), best_step=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000015-rank0.pt"]


def test_what_is_not_continued_is_said_with_its_reason(tmp_path, capsys):
    ResumeFolder(tmp_path, key="k").save(5, state(1.0), best_step=None)
    assert ResumeFolder(tmp_path, key="other").load(CPU, say=print) is None
    assert "step 5: step-00000005-rank0.pt is of another configuration, data set or part" in capsys.readouterr().out
    assert ResumeFolder(tmp_path, key="k", n_ranks=2).load(CPU, say=print) is None
    assert "process 1 of 2 had not written its resume file" in capsys.readouterr().out
    torch.save({**state(0.0), "step": 5, "key": "k", "n_ranks": 1}, tmp_path / "step-00000005-rank1.pt")
    assert ResumeFolder(tmp_path, key="k", n_ranks=2).load(CPU, say=print) is None
    assert "written by 1 processes, now there are 2" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "bytes", "other"])
def test_a_damaged_file_is_passed_over_with_a_word(tmp_path, capsys, damage):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save(10, state(2.0), best_step=None)
    newest = tmp_path / "step-00000010-rank0.pt"
    whole = newest.read_bytes()
    torch.save({**state(1.0), "step": 5, "key": "k", "n_ranks": 1}, tmp_path / "step-00000005-rank0.pt")
    if damage == "other":
        torch.save([1, 2], newest)
    else:
        damaged = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"no state", "bytes": whole[::-1]}
        newest.write_bytes(damaged[damage])
    found = folder.load(CPU, say=print)
    assert found["step"] == 5
    assert "does not go on from step 10: step-00000010-rank0.pt is damaged" in capsys.readouterr().out


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_file_that_holds_more_than_tensors_and_plain_values_is_not_run(tmp_path, capsys):
    torch.save({**state(1.0), "step": 5, "key": "k", "n_ranks": 1, "evil": Evil()}, tmp_path / "step-00000005-rank0.pt")
    assert ResumeFolder(tmp_path, key="k").load(CPU, say=print) is None
    told = capsys.readouterr().out
    assert "step-00000005-rank0.pt is damaged (UnpicklingError)" in told
    assert "executed" not in told


def test_a_state_whose_best_weights_are_damaged_is_passed_over(tmp_path, capsys):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save_best(4, {"w": torch.tensor([4.0])})
    folder.save(5, state(1.0), best_step=4)
    (tmp_path / "best-00000004.safetensors").write_bytes(b"half")
    assert folder.load(CPU, say=print) is None
    assert "best-00000004.safetensors, its best weights, are damaged" in capsys.readouterr().out


def test_a_full_disk_leaves_the_older_file_and_no_part_of_the_new_one(tmp_path, monkeypatch):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save(5, state(1.0), best_step=None)

    def full(value, path):
        path.write_bytes(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        folder.save(10, state(2.0), best_step=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005-rank0.pt"]
