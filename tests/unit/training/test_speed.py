import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from hepipe.dataset.batch import Batch
from hepipe.errors import ConfigError
from hepipe.models.catalog import catalog
from hepipe.models.finished import finished_state
from hepipe.models.method import Average, Frozen, Progress
from hepipe.models.resolved import resolve_run, zoo_module
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.training.loop import iterate, make_players
from hepipe.training.speed import check_compiler, compilable, in_eager, lay_channels_last, speed_up

CPU = torch.device("cpu")
# These make their networks' inputs single precision themselves.
DTYPES = {"bbdm": torch.float32, "cssp2p": torch.float32}


def trains(model):
    module = zoo_module(model)
    return bool(module.build(module.PRESETS["tiny"], {}).players())


TRAINED = [model for model in sorted(catalog()) if trains(model)]


def make_batch(model, n_tiles, side=64):
    random, dtype = torch.Generator().manual_seed(7), DTYPES.get(model, torch.float64)
    he, ihc, loose = (torch.rand(n_tiles, 3, side, side, generator=random).to(dtype) * 2 - 1 for _ in range(3))
    extras = {"dab_mask": (ihc[:, :1] > 0).to(dtype), "score": torch.arange(n_tiles) % 4, "loose_ihc": loose}
    needs = catalog()[model].needs_of("tiny")
    names = tuple(f"c/{i}-0" for i in range(n_tiles))
    return Batch(names, he, ihc, ("HER2",) * n_tiles, {need: extras[need] for need in needs})


def run(model, n_tiles, *, last):
    """Terms of two iterations and what is then stained, in double precision where the model can.

    Without dropout, which draws in the order that the values lie in.
    """
    torch.manual_seed(0)
    module = zoo_module(model)
    config = module.PRESETS["tiny"]
    if "dropout" in type(config).model_fields:
        config = config.model_copy(update={"dropout": 0.0})
    method = module.build(config, {}).to(DTYPES.get(model, torch.float64)).train()
    names = list(method.state_dict())
    if last:
        lay_channels_last(method)
    assert list(method.state_dict()) == names
    players = make_players(method, precision="fp32", device=CPU)
    batch, terms = make_batch(model, n_tiles), []
    for step in range(2):
        torch.manual_seed(step)
        for player, found in iterate(method, batch, Progress(step, 8, 4, seed=step), players):
            terms.append((player, {name: float(value) for name, value in found.items()}))
    method.train(False)
    return terms, method.stain(batch.he, seeds=torch.arange(n_tiles)), method


@pytest.mark.parametrize("model", TRAINED)
def test_channels_last_changes_no_loss_and_no_picture(model):
    n_tiles = 1  # where torch 2.13 takes a wrong gradient of instance norm
    terms, virtual, _ = run(model, n_tiles, last=False)
    other_terms, other_virtual, method = run(model, n_tiles, last=True)
    maps = [p for p in method.parameters() if p.dim() == 4 and min(p.shape[1:]) > 1]
    assert maps or model == "pixel_map"
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in maps)
    assert all(tensor.is_contiguous() for tensor in finished_state(method).values())
    for (player, found), (other, other_found) in zip(terms, other_terms, strict=True):
        assert player == other
        assert other_found == pytest.approx(found, rel=2e-3, abs=1e-6)
    torch.testing.assert_close(other_virtual, virtual, atol=1e-3, rtol=0)


class Penalised(nn.Module):
    """A generator with a second way in, critics under a penalty on a gradient, a frozen part and an average."""

    def __init__(self):
        super().__init__()
        self.generator = nn.Conv2d(3, 3, 3, padding=1)
        self.slow = nn.Conv2d(3, 3, 3, padding=1).requires_grad_(False)
        self.critics = nn.ModuleDict({"near": nn.Conv2d(3, 1, 3), "far": nn.Conv2d(3, 1, 5)})
        self.judges = nn.ModuleList([nn.Conv2d(3, 1, 3)])
        self.teacher = Frozen(nn.Conv2d(3, 3, 1))

    def players(self):
        return {"generator": self.generator}

    def averages(self):
        return {"slow": Average("generator", self.generator, self.slow, lambda at: 0.9)}

    def differentiated_twice(self):
        return [self.critics["near"]]

    def optimizer(self, player): ...
    def rate(self, player, at): ...
    def turns(self, batch, at) -> Iterator[None]: ...
    def stain(self, tiles, *, seeds, to="ihc"): ...


def test_called_networks_are_compiled_but_never_one_that_is_differentiated_twice():
    method = Penalised()
    found = compilable(method)
    wanted = [method.generator, method.critics["far"], method.judges[0], method.teacher.module]
    assert [id(network) for network in found] == [id(network) for network in wanted]
    method.differentiated_twice = lambda: [method.critics, method.generator]
    assert [id(network) for network in compilable(method)] == [id(network) for network in wanted[2:]]


def test_nothing_is_compiled_or_imported_for_it_unless_asked_for():
    method = Penalised()
    speed_up(method, TrainingSpec(), device=CPU, where="training")
    assert all(module._compiled_call_impl is None for module in method.modules())
    with in_eager(TrainingSpec()):
        assert method.generator(torch.zeros(1, 3, 4, 4)).shape == (1, 3, 4, 4)


def test_a_compiler_that_does_not_work_is_told_at_the_start(monkeypatch):
    def broken(function, **options):
        def call(*inputs):
            raise RuntimeError("no g++ here\nand a long trace")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    told = (
        r"runs\.a\.training\.compile: .* cannot compile for cpu here \(RuntimeError: no g\+\+ here\); install a C\+\+"
    )
    with pytest.raises(ConfigError, match=told):
        check_compiler(CPU, where="runs.a.training")
    with pytest.raises(ConfigError, match="or set compile: none"):
        speed_up(Penalised(), TrainingSpec(compile="default"), device=CPU, where="runs.a.training")


def test_channels_last_on_a_cpu_is_refused_since_torch_may_crash():
    with pytest.raises(ConfigError, match=r"runs\.a\.training\.channels_last: on a CPU .* set channels_last: false"):
        speed_up(Penalised(), TrainingSpec(channels_last=True), device=CPU, where="runs.a.training")


def test_what_changes_the_last_digits_is_in_the_digest_of_a_run():
    def digest(**training):
        return resolve_run("a", RunSpec(model="pix2pix", dataset="d", preset="tiny", training=training)).digest

    plain = digest(crop_px=64)
    assert digest(crop_px=64, compile="none", channels_last=False) == plain
    assert len({plain, digest(crop_px=64, compile="default"), digest(crop_px=64, channels_last=True)}) == 3


COMPILED = """
import json, sys, torch
from torch import nn
from hepipe.dataset.batch import Batch
from hepipe.models.method import Progress
from hepipe.models.resolved import zoo_module
from hepipe.networks.blocks import InstanceNorm
from hepipe.specs.training import TrainingSpec
from hepipe.training.loop import iterate, make_players
from hepipe.training.speed import in_eager, speed_up

DTYPE = torch.float64 if sys.argv[1] == "duel" else torch.float32
model, sides = sys.argv[1], [int(side) for side in sys.argv[2:]]

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3, padding=1), InstanceNorm(4), nn.Conv2d(4, 3, 1)
    entries = ("features",)
    def features(self, x):
        return self.norm(self.first(x))
    def forward(self, x):
        return self.last(self.features(x).relu())

class Duel(nn.Module):
    def __init__(self):
        super().__init__()
        self.generator, self.critic = Small(), nn.Conv2d(3, 1, 3)
    def players(self):
        return {"critic": self.critic, "generator": self.generator}
    def optimizer(self, player):
        return torch.optim.SGD(self.players()[player].parameters(), lr=1e-3)
    def rate(self, player, at):
        return 1.0
    def averages(self):
        return {}
    def differentiated_twice(self):
        return [self.critic]
    def turns(self, batch, at):
        from hepipe.models.method import Turn
        fake, real = self.generator(batch.he), batch.ihc.clone().requires_grad_()
        score = self.critic(real).mean()
        slope, = torch.autograd.grad(score, real, create_graph=True)
        yield Turn("critic", self.critic(fake.detach()).mean() - score + slope.square().sum())
        # Indexing gives a gradient that is laid out channels last, as sampled patches do.
        near = self.generator.features(fake).flatten(2)[:, :, torch.arange(0, fake.shape[2] ** 2, 3)]
        yield Turn("generator", (fake - batch.ihc).abs().mean() + near.square().mean() - self.critic(fake).mean())
    def stain(self, tiles, *, seeds, to="ihc"):
        return self.generator(tiles)

def run(spec):
    torch.manual_seed(0)
    module = None if model == "duel" else zoo_module(model)
    if module is None:
        method = Duel()
    else:
        config = module.PRESETS["tiny"]
        same = {"dropout": 0.0, "full_size": sides[0]}
        method = module.build(config.model_copy(update={k: v for k, v in same.items() if hasattr(config, k)}), {})
    method.to(DTYPE).train()
    names = list(method.state_dict())
    speed_up(method, spec, device=torch.device("cpu"), where="training", backend="aot_eager")
    players, terms = make_players(method, precision="fp32", device=torch.device("cpu")), []
    for step, side in enumerate(sides):
        random = torch.Generator().manual_seed(step)
        n = 1
        he, ihc = (torch.rand(n, 3, side, side, generator=random).to(DTYPE) * 2 - 1 for _ in range(2))
        extras = {"dab_mask": (ihc[:, :1] > 0).to(DTYPE), "score": torch.arange(n) % 4, "loose_ihc": ihc}
        batch = Batch(tuple(map(str, range(n))), he, ihc, ("HER2",) * n, extras)
        torch.manual_seed(step)
        for player, found in iterate(method, batch, Progress(step, 8, 4, seed=step), players):
            terms += [float(value) for value in found.values()]
    method.train(False)
    with in_eager(spec), torch.no_grad():
        terms.append(float(method.stain(batch.he, seeds=torch.arange(n)).abs().mean()))
    assert list(method.state_dict()) == names
    return terms

plain = run(TrainingSpec())
compiled = run(TrainingSpec(compile="default"))
import torch._dynamo
from torch._dynamo.utils import counters
stops = torch._dynamo.config.fail_on_recompile_limit_hit
print(json.dumps([plain, compiled, counters["stats"]["unique_graphs"], stops]))
"""


def compiled_run(model, sides, tmp_path):
    """In a process of its own: torch does not trace through the checks of shapes that tests put around everything."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    command = [sys.executable, "-c", COMPILED, model, *map(str, sides)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_compiled_networks_give_the_same_losses_for_every_size_of_tile_beside_a_penalty(tmp_path):
    plain, compiled, graphs, stops = compiled_run("duel", [8, 12, 8, 9, 10, 11, 13, 14, 15, 16], tmp_path)
    assert graphs >= 9
    assert stops
    assert compiled == pytest.approx(plain, rel=1e-6, abs=1e-9)


@pytest.mark.long
@pytest.mark.parametrize("model", TRAINED)
def test_a_compiled_model_of_the_zoo_gives_the_same_losses(model, tmp_path):
    plain, compiled, graphs, _ = compiled_run(model, [64, 64], tmp_path)
    assert graphs > 0
    assert compiled == pytest.approx(plain, rel=2e-2, abs=1e-4)
