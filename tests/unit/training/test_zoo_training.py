"""Every model of the zoo in the loop: resume, half precision, and what ends a training early."""

import copy
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.optim import SGD

from hepipe.dataset.tiles import Sampler, SplitTiles
from hepipe.errors import ConfigError, HepipeError, StoreError
from hepipe.models.catalog import catalog
from hepipe.models.finished import read_state
from hepipe.models.method import Progress, Turn
from hepipe.models.resolved import resolve_run, write_resolved, zoo_module
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.training.batch_norm import has_batch_norm, join_batch_norms
from hepipe.training.claim import claimed
from hepipe.training.history import History
from hepipe.training.loop import iterate, make_players, next_turn, train_method
from hepipe.training.resume import ResumeFolder
from hepipe.training.train import train_run
from hepipe.training.watch import Watch

CPU = torch.device("cpu")
ENTRIES = catalog()


def built(model, **options):
    module = zoo_module(model)
    torch.manual_seed(0)
    preset = module.PRESETS["tiny"]
    return module.build(type(preset).model_validate({**dict(preset), **options}), {})


TRAINABLE = [name for name in sorted(ENTRIES) if built(name).players()]
SIDE = {name: next(side for side in range(64, 1025) if ENTRIES[name].takes(side, "tiny")) for name in TRAINABLE}


class Killed(Exception):
    """Stands for a SIGKILL."""


def killing(method, *, step, turn):
    """The same method, dying before a turn of a step."""
    real = method.turns

    def turns(batch, at):
        for number, given in enumerate(real(batch, at)):
            if (at.step, number) == (step, turn):
                raise Killed
            yield given

    method.turns = turns
    return method


@pytest.fixture(scope="module")
def index(tmp_path_factory, make_index_in):
    return make_index_in(tmp_path_factory.mktemp("zoo"), {"train": 5, "val": 2}, tile_px=max(SIDE.values()))


def sampler_of(model, index, *, batch_size=2, crop_px=None):
    entry = ENTRIES[model]
    return Sampler(
        SplitTiles(index, "train"),
        batch_size=batch_size,
        crop_px=crop_px or SIDE[model],
        flips=True,
        seed=3,
        needs=entry.needs_of("tiny"),
        unpaired=entry.pairing == "unpaired",
    )


def train(model, method, index, folder, **changes):
    spec = TrainingSpec.model_validate(
        {"n_steps": 5, "batch_size": 2, "crop_px": SIDE[model], "checkpoint_every": 2, "workers": 0, **changes}
    )
    history = History(model)
    state = train_method(
        method,
        sampler_of(model, index, batch_size=spec.batch_size, crop_px=spec.crop_px),
        spec=spec,
        seed=3,
        device=CPU,
        watch=Watch(SplitTiles(index, "val"), crop_px=spec.crop_px, max_tiles=1, batch_size=1, device=CPU),
        choice=None,
        resume=ResumeFolder(folder / "resume", key="k"),
        history=history,
        samples=folder / "samples",
    )
    return state, list(history.rows())


@pytest.mark.parametrize("model", TRAINABLE)
def test_a_model_killed_between_turns_goes_on_to_identical_weights(index, tmp_path, model):
    changes = {"n_steps": 4, "batch_size": 2 if has_batch_norm(built(model)) else 1}
    whole, rows = train(model, built(model), index, tmp_path / "whole", **changes)
    turns = len(list(built(model).turns(sampler_of(model, index).batch(0), Progress(3, 4, 3))))
    method = killing(built(model), step=3, turn=turns - 1)
    with pytest.raises(Killed):
        train(model, method, index, tmp_path / "killed", **changes)
    resumed, resumed_rows = train(model, built(model), index, tmp_path / "killed", **changes)
    assert rows == resumed_rows
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
    fresh = {name: value for name, value in built(model).state_dict().items() if name in whole}
    assert any(not torch.equal(value, fresh[name]) for name, value in whole.items())


def test_a_process_killed_at_any_moment_goes_on_to_identical_weights(make_index, tmp_path, capfd):
    index = make_index({"train": 5, "val": 2}, tile_px=64)
    training = {"n_steps": 10, "batch_size": 1, "crop_px": 64, "workers": 1, "threads": 1, "checkpoint_every": 1}
    spec = RunSpec(model="asp", preset="tiny", dataset="set", training=TrainingSpec.model_validate(training))
    made, folder = resolve_run("r", spec), tmp_path / "killed"
    write_resolved(folder / "config.json", made)
    process = subprocess.Popen([sys.executable, "-c", START, str(folder), str(index)])
    assert wait_for_step(folder / "resume", 2, process) < 10
    time.sleep(0.02 * (time.time_ns() % 7))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "model.safetensors").exists()
    run(made, index, folder)
    assert "r: goes on from step " in capfd.readouterr().err
    run(made, index, tmp_path / "whole")
    ends = [read_state(tmp_path / name / "model.safetensors") for name in ("whole", "killed")]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name


START = """
import sys
from pathlib import Path
import torch
from hepipe.models.resolved import read_resolved
from hepipe.training.train import train_run
torch.set_num_threads(1)
folder, index = map(Path, sys.argv[1:])
model, history = folder / "model.safetensors", folder / "history.parquet"
train_run(read_resolved(folder / "config.json"), index, fingerprint="f", part_folders={}, model=model, history=history)
"""


def wait_for_step(folder, least, process):
    """The newest step in a folder of resume files once it is at least this one."""
    for _ in range(2000):
        steps = [int(path.name.split("-")[1]) for path in folder.glob("step-*.pt")] if folder.is_dir() else []
        if steps and max(steps) >= least:
            return max(steps)
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.03)
    raise AssertionError("no resume file came")


@pytest.mark.parametrize("model", TRAINABLE)
def test_in_bf16_every_turn_sees_the_weights_that_have_stepped_and_loses_in_float32(index, model):
    assert stale_turns(model, index, next_turn) == []


def test_one_autocast_over_all_turns_would_be_noticed(index):
    contexts = []

    def in_one_autocast(turns, *, precision, device):
        if not contexts:
            contexts.append(torch.autocast(device.type, dtype=torch.bfloat16))
            contexts[0].__enter__()
        return next(turns, None)

    try:
        assert stale_turns("pix2pix", index, in_one_autocast) == ["generator"]
    finally:
        contexts[0].__exit__(None, None, None)


def stale_turns(model, index, given_turn):
    """Players whose turn differs from the same turn of a copy whose weights are set anew and never cast before."""
    method, at, batch = built(model), Progress(0, 4, 2, seed=7), sampler_of(model, index).batch(0)
    players = make_players(method, precision="bf16", device=CPU)
    for player in players.values():  # so that a step shows in bf16
        for group in player.optimizer.param_groups:
            group["lr"] = 0.05
    copied = copy.deepcopy(method)
    torch.manual_seed(5)
    turns, fresh_turns = method.turns(batch, at), copied.turns(batch, at)
    stale, n_turns = [], 0
    while True:
        state = torch.get_rng_state()
        turn = given_turn(turns, precision="bf16", device=CPU)
        torch.set_rng_state(state)
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=False):
            fresh = next(fresh_turns, None)
        if turn is None:
            assert fresh is None
            assert n_turns >= 1
            return stale
        n_turns += 1
        assert turn.loss.dtype == torch.float32
        assert {value.dtype for value in turn.logs.values()} <= {torch.float32}
        if not torch.equal(turn.loss, fresh.loss):
            stale.append(turn.player)
        player = players[turn.player]
        turn.loss.backward(inputs=player.parameters)
        player.optimizer.step()
        with torch.no_grad():
            for name, value in method.named_parameters():
                copied.get_parameter(name).copy_(value)


@pytest.mark.parametrize("model", TRAINABLE)
def test_in_bf16_the_same_parameters_get_gradients_as_in_fp32(index, model):
    reached = []
    for precision in ("fp32", "bf16"):
        method, batch = built(model), sampler_of(model, index).batch(0)
        players = make_players(method, precision=precision, device=CPU)
        names = {id(parameter): name for name, parameter in method.named_parameters()}
        found = set()
        turns = method.turns(batch, Progress(0, 4, 2, seed=7))
        while (turn := next_turn(turns, precision=precision, device=CPU)) is not None:
            turn.loss.backward(inputs=players[turn.player].parameters)
            found |= {names[id(p)] for p in players[turn.player].parameters if p.grad is not None}
        reached.append(found)
    assert reached[0] == reached[1] != set()


class Line(nn.Module):
    """One convolution and a batch norm under a squared error; a term, a gradient or a norm may be bad."""

    def __init__(self, *, gradient=None, shrink=1):
        super().__init__()
        torch.manual_seed(0)
        self.gradient = gradient
        self.net = nn.Sequential(nn.Conv2d(3, 3, shrink, stride=shrink), nn.BatchNorm2d(3))

    def players(self):
        return {"net": self.net}

    def optimizer(self, player):
        return SGD(self.net.parameters(), lr=0.1)

    def rate(self, player, at):
        return 1.0

    def averages(self):
        return {}

    def turns(self, batch, at):
        output = self.net(batch.he)
        if self.gradient is not None and at.step >= self.gradient:
            output.register_hook(lambda gradient: gradient * float("inf"))
        yield Turn("net", output.square().mean() + output.sum() * 1e-3)

    def stain(self, tiles, *, seeds, to="ihc"):
        return tiles


def test_a_gradient_that_is_not_finite_ends_a_training_whose_last_resume_file_is_from_before(index, tmp_path):
    with pytest.raises(HepipeError, match=r"run pixel_map: the gradient of net, whose loss terms are finite, became"):
        train("pixel_map", Line(gradient=3), index, tmp_path, checkpoint_every=1, log_every=100)
    (path,) = (tmp_path / "resume").glob("step-*.pt")
    assert path.name == "step-00000003-rank0.pt"
    state = torch.load(path, weights_only=True)
    assert all(bool(value.isfinite().all()) for value in state["method"].values())


def test_fp16_skips_a_step_that_overflows_and_goes_on(index, tmp_path):
    state, rows = train("pixel_map", Line(), index, tmp_path, precision="fp16", log_every=1)
    skipped = [row["value"] for row in rows if row["name"] == "net.skipped"]
    assert len(skipped) == 5
    assert not torch.equal(state["net.0.weight"], Line().net[0].weight)


def test_fp16_that_only_overflows_is_an_error_that_says_so(index, tmp_path):
    with pytest.raises(HepipeError, match=r"gradients of net overflow fp16 step after step, .* bf16 or fp32"):
        train("pixel_map", Line(gradient=0), index, tmp_path, precision="fp16", n_steps=60, log_every=1)


def test_a_batch_norm_over_one_value_is_refused_by_name_before_anything_is_learnt(index, tmp_path):
    method = Line(shrink=64)
    before = copy.deepcopy(method.state_dict())
    with pytest.raises(ConfigError, match=r"run pixel_map: batch norm net\.1 sees one tile and a map of 1x1"):
        train("pixel_map", method, index, tmp_path, batch_size=1, crop_px=64)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    with pytest.raises(
        ConfigError, match=r"at least 2 tiles for each process and each piece of training\.accumulation"
    ):
        train("pixel_map", Line(shrink=64), index, tmp_path, batch_size=3, accumulation=2, crop_px=64)


def test_a_batch_of_one_trains_where_its_maps_are_larger_than_one_value(index, tmp_path):
    train("pixel_map", Line(shrink=32), index, tmp_path / "line", batch_size=1, crop_px=64, n_steps=1)
    # As published: the innermost level of the U-Net is 1x1, and has no norm there.
    method = built("pix2pix")
    narrowest = []
    method.generator.register_forward_hook(lambda *args: None)
    for module in method.generator.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: narrowest.append(output.shape[-1]))
    train("pix2pix", method, index, tmp_path / "pix2pix", batch_size=1, crop_px=32, n_steps=1)
    assert min(narrowest) == 1


def test_an_instance_norm_over_one_value_is_refused_by_name(index, tmp_path):
    method = built("cssp2p")
    with pytest.raises(ConfigError, match=r"run cssp2p: instance norm generator\.\S+ sees a map of 1x1.*crop_px"):
        train("cssp2p", method, index, tmp_path, crop_px=16)


def test_joined_batch_norms_of_one_process_are_what_they_were(index, tmp_path):
    alone, joined = (
        train("pix2pix", built("pix2pix"), index, tmp_path / str(sync), sync_batch_norm=sync, n_steps=2)
        for sync in (False, True)
    )
    assert alone[1] == joined[1]
    assert all(torch.equal(value, joined[0][name]) for name, value in alone[0].items())


def test_joining_keeps_the_names_and_leaves_frozen_parts_alone():
    from hepipe.models.method import Frozen

    network = nn.ModuleDict({"net": nn.Sequential(nn.BatchNorm2d(3)), "frozen": Frozen(nn.BatchNorm2d(3))})
    norm, names = network["net"][0], list(network.state_dict())
    assert join_batch_norms(network) == ["net.0"]
    assert network["net"][0] is norm
    assert isinstance(norm, nn.BatchNorm2d)
    assert list(network.state_dict()) == names
    assert type(network["frozen"].module) is nn.BatchNorm2d


def resolved(model, **training):
    spec = TrainingSpec.model_validate(
        {"n_steps": 2, "batch_size": 2, "crop_px": SIDE[model], "workers": 0, "threads": 1, **training}
    )
    return resolve_run("r", RunSpec(model=model, preset="tiny", dataset="set", training=spec))


def run(made, index, folder):
    files = {"model": folder / "model.safetensors", "history": folder / "history.parquet"}
    train_run(made, index, fingerprint="f", part_folders={}, **files)


def test_a_run_that_is_being_trained_is_not_trained_twice(index, tmp_path):
    with (
        claimed(tmp_path / "r", run="r"),
        pytest.raises(StoreError, match=rf"run r: process {os.getpid()} on host .* trains into"),
    ):
        run(resolved("pixel_map"), index, tmp_path / "r")


def test_a_run_that_does_not_fit_into_memory_says_what_would_help_it(index, tmp_path, monkeypatch):
    from hepipe.models.zoo.pix2pix import Pix2pix

    def turns(self, batch, at):
        raise torch.OutOfMemoryError("CUDA out of memory")
        yield

    monkeypatch.setattr(Pix2pix, "turns", turns)
    with pytest.raises(HepipeError) as caught:
        run(resolved("pix2pix"), index, tmp_path / "r")
    text = str(caught.value)
    assert "run r: out of memory on cpu with 2 tiles of 64 px" in text
    assert "training.crop_px: 32" in text
    assert "options.recompute: true" in text
    assert "accumulation: 2 together with options.recompute" in text
    assert "changes the result: its batch norm" in text


def test_a_run_of_another_configuration_says_that_it_starts_anew(index, tmp_path, capsys, monkeypatch):
    from hepipe.models.zoo.pixel_map import PixelMap

    real = PixelMap.turns

    def turns(self, batch, at):
        if at.step == 1:
            raise Killed
        yield from real(self, batch, at)

    with monkeypatch.context() as patched:
        patched.setattr(PixelMap, "turns", turns)
        with pytest.raises(Killed):
            run(resolved("pixel_map", checkpoint_every=1, n_steps=3), index, tmp_path / "r")
    capsys.readouterr()
    run(resolved("pixel_map", checkpoint_every=1, n_steps=2), index, tmp_path / "r")
    told = capsys.readouterr().err
    assert "r: does not go on from step 1: step-00000001-rank0.pt is of another configuration, data set or part" in told
    assert "goes on" not in told.replace("does not go on", "")


def test_terms_of_an_iteration_come_with_the_norm_of_the_gradient_before_clipping(index):
    method, batch = Line(), sampler_of("pixel_map", index).batch(0)
    players = make_players(method, precision="fp32", device=CPU)
    ((_, terms),) = iterate(method, batch, Progress(0, 2, 2), players)
    method = Line()
    (turn,) = method.turns(batch, Progress(0, 2, 2))
    turn.loss.backward()
    norm = torch.cat([p.grad.flatten() for p in method.parameters()]).norm()
    assert list(terms) == ["loss", "gradient"]
    assert float(terms["gradient"]) == pytest.approx(float(norm), rel=1e-5)
