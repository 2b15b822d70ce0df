"""What is proposed when memory runs out."""

import pytest
import torch

from hepipe.errors import HepipeError
from hepipe.models.catalog import catalog
from hepipe.models.resolved import resolve_run
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.training.memory import is_out_of_memory, out_of_memory, proposing_what_helps


def told(model, preset="paper", *, options=None, batch_norm=False, n_ranks=1, **training):
    spec = TrainingSpec.model_validate({"crop_px": 512, "batch_size": 4, **training})
    chosen = {"model": model, "preset": preset, "dataset": "set", "options": options or {}, "training": spec}
    run = resolve_run("r", RunSpec.model_validate(chosen))
    return out_of_memory(run, catalog()[model], batch_norm=batch_norm, n_ranks=n_ranks)


def test_crop_then_recompute_then_accumulation_are_proposed_to_a_model_that_has_them():
    text = told("cut")
    assert text.startswith("run r: out of memory on cpu with 4 tiles of 512 px, accumulation 1, fp32. What saves")
    places = [text.index(word) for word in ("crop_px: 384", "options.recompute: true", "training.accumulation: 2")]
    assert places == sorted(places)
    assert "the same batch" in text
    assert "batch norm" not in text


def test_what_the_run_has_already_is_not_proposed_again():
    text = told("cut", options={"recompute": True}, accumulation=4)
    assert "recompute" not in text
    assert "training.accumulation" not in text
    assert "crop_px: 384" in text


def test_a_model_with_batch_norm_is_told_that_accumulation_changes_its_result():
    assert "accumulation: 2 together with options.recompute" in told("pix2pix", batch_norm=True)
    assert "changes the result: its batch norm then sees a piece at a time" in told("pix2pix", batch_norm=True)


def test_a_crop_is_one_that_the_model_takes_or_none():
    assert "training.crop_px: 256" in told("pix2pix")
    assert "crop_px:" not in told("pix2pix", crop_px=256)
    assert "training.crop_px: 64" in told("asp", crop_px=96)
    assert "crop_px:" not in told("asp", crop_px=64), "its pyramid loss takes no less"
    assert "crop_px:" not in told("bcistainer", crop_px=1024), "its networks are built for one side"


def test_a_crop_is_not_too_small_for_the_metric_that_chooses_the_checkpoint():
    assert "training.crop_px: 192" in told("cut", crop_px=256, select={"metric": "msssim"})
    assert "crop_px:" not in told("cut", crop_px=176, select={"metric": "msssim"})


def test_a_network_that_recomputes_by_levels_is_told_so():
    assert "options.recompute_levels: 1 or up to 6" in told("bbdm")
    assert "recompute" not in told("bbdm", options={"recompute_levels": 6})
    assert "options.recompute:" not in told("bbdm")


def test_of_several_processes_each_has_its_share():
    text = told("cut", n_ranks=4, batch_size=8)
    assert "with 2 tiles of 512 px on each of 4 processes" in text
    assert "training.accumulation: 2" in text
    assert "accumulation: " not in told("cut", n_ranks=4, batch_size=4).replace("accumulation 1", "")


def test_where_nothing_helps_that_is_said():
    assert told("pix2pix", crop_px=256, batch_size=1, options={"recompute": True}).endswith(
        "nothing here can be made smaller: it needs a device with more memory"
    )


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError(),
    ],
)
def test_the_errors_of_gpu_and_cpu_are_known(error):
    spec = TrainingSpec(crop_px=512)
    run = resolve_run("r", RunSpec(model="cut", dataset="set", training=spec))
    with (
        pytest.raises(HepipeError, match=r"run r: out of memory on cpu .*crop_px: 384"),
        proposing_what_helps(run, catalog()["cut"], batch_norm=False, n_ranks=1),
    ):
        raise error


def test_torchs_own_error_of_a_cpu_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)


def test_other_errors_pass_as_they_are():
    run = resolve_run("r", RunSpec(model="cut", dataset="set", training=TrainingSpec()))
    with (
        pytest.raises(RuntimeError, match="shapes"),
        proposing_what_helps(run, catalog()["cut"], batch_norm=False, n_ranks=1),
    ):
        raise RuntimeError("shapes do not fit")
