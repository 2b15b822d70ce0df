import torch

from hepipe.training.resume import ResumeFolder

CPU = torch.device("cpu")


def state(value):
    return {"weights": {"w": torch.tensor([value])}, "best_step": None}


def test_nothing_to_go_on_from(tmp_path):
    assert ResumeFolder(tmp_path / "resume", key="k").load(CPU) is None


def test_the_newest_state_comes_back_and_older_files_go(tmp_path):
    folder = ResumeFolder(tmp_path, key="k")
    folder.save(5, state(1.0), best_step=None)
    folder.save(10, state(2.0), best_step=None)
    found = folder.load(CPU)
    assert (found["step"], found["weights"]["w"].item()) == (10, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000010-rank0.pt"]


def test_a_step_counts_only_when_every_process_has_written_it(tmp_path):
    both = [ResumeFolder(tmp_path, key="k", rank=rank, n_ranks=2) for rank in range(2)]
    both[1].save(5, state(1.0), best_step=None)
    assert both[0].load(CPU) is None
    torch.save({**state(0.0), "step": 5, "key": "k", "n_ranks": 2}, tmp_path / "step-00000005-rank0.pt")
    torch.save({**state(0.0), "step": 10, "key": "k", "n_ranks": 2}, tmp_path / "step-00000010-rank0.pt")
    assert both[0].load(CPU)["step"] == both[1].load(CPU)["step"] == 5


def test_another_key_or_number_of_processes_is_not_continued(tmp_path):
    ResumeFolder(tmp_path, key="k").save(5, state(1.0), best_step=None)
    assert ResumeFolder(tmp_path, key="other").load(CPU) is None
    torch.save({**state(0.0), "step": 5, "key": "k", "n_ranks": 1}, tmp_path / "step-00000005-rank1.pt")
    assert ResumeFolder(tmp_path, key="k", rank=0, n_ranks=2).load(CPU) is None


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
    assert folder.load(CPU)["step"] == 5
    folder.save(15, state(1.0), best_step=None)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000015-rank0.pt"]
