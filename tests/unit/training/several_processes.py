"""Trainings that one process runs in a test and two run in `test_several_processes.py`, whose results are compared.

Run as a program it is one process of torchrun: several_processes.py INDEX FOLDER.
"""

from __future__ import annotations

import json
import math
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD

from hepipe.dataset.tiles import Sampler, SplitTiles
from hepipe.errors import HepipeError
from hepipe.models.catalog import catalog
from hepipe.models.finished import load_state
from hepipe.models.method import Progress, Turn
from hepipe.models.ranks import LONGEST_WAIT, n_ranks, rank, sum_over_ranks, torchrun_group, wait_for_all
from hepipe.models.resolved import zoo_module
from hepipe.specs.training import TrainingSpec
from hepipe.training.batch_norm import join_batch_norms
from hepipe.training.history import History
from hepipe.training.loop import iterate, make_players, train_method
from hepipe.training.resume import ResumeFolder
from hepipe.training.watch import Watch, find_choice

CPU = torch.device("cpu")
CROP = 32

TRAININGS = {
    # Three tiles for two processes: one has two of them.
    "cut": ("cut", {}, {"batch_size": 3, "n_steps": 2}),
    "bbdm": ("bbdm", {}, {"batch_size": 3, "n_steps": 6}),
    "pix2pix": (
        "pix2pix",
        # Rank 0 validates in train mode, by the statistics of each tile, and must not wait for the others there.
        {"dropout": 0.0, "inference_mode": "train_stats"},
        {
            "batch_size": 5,
            "n_steps": 3,
            "sync_batch_norm": True,
            "accumulation": 2,
            "select": {"metric": "mae", "every": 2},
        },
    ),
    # Young networks under these norms have gradients of a million: rounding alone grows to 1e-3 in three steps of one
    # process that cuts its batch. So the same in double precision, where nothing but a mistake can differ.
    "cut, double": ("cut", {}, {"batch_size": 3, "n_steps": 4}),
    "fastcut, double": (
        "cut",
        {"flip_equivariance": True, "identity_nce": False},
        {"batch_size": 3, "n_steps": 4},
    ),
    "cut in pieces, double": ("cut", {"recompute": True}, {"batch_size": 5, "n_steps": 3, "accumulation": 2}),
    # Seven tiles are an epoch, after which trust in all patches falls.
    "asp, double": ("asp", {"schedule": "linear", "pyramid_weight": 0.0}, {"batch_size": 7, "n_steps": 3}),
    "cssp2p, double": (
        "cssp2p",
        {"lr": 1e-3, "objective": "cbce"},
        {"batch_size": 3, "n_steps": 4, "sync_batch_norm": True},
    ),
    "cssp2p apart, double": ("cssp2p", {"lr": 1e-3, "objective": "cbce"}, {"batch_size": 3, "n_steps": 4}),
}
"""Name to model, options and protocol."""


@contextmanager
def all_in_double(yes):
    """Whatever is float32 is float64 for a while, also where a loss asks for float32."""
    if not yes:
        yield
        return
    as_float, as_loaded, as_drawn = torch.Tensor.float, Sampler.batch, Watch.picture
    torch.Tensor.float = torch.Tensor.double
    Sampler.batch = lambda self, step: as_loaded(self, step)._each(torch.Tensor.double)
    Watch.picture = lambda *args, **kwargs: None
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.Tensor.float, Sampler.batch, Watch.picture = as_float, as_loaded, as_drawn
        torch.set_default_dtype(torch.float32)


def built(model, options):
    module = zoo_module(model)
    torch.manual_seed(0)
    return module.build(type(module.PRESETS["tiny"]).model_validate({**dict(module.PRESETS["tiny"]), **options}), {})


def trained(index, folder, name, *, killed_at=None):
    """History rows, the finished method, and with one process tiles to stain."""
    with all_in_double("double" in name):
        return _trained(index, folder, *TRAININGS[name], killed_at=killed_at)


def _trained(index, folder, model, options, changes, *, killed_at):
    spec = TrainingSpec.model_validate(
        {"crop_px": CROP, "workers": 0, "log_every": 1, "checkpoint_every": 2, "sample_every": 100, **changes}
    )
    entry, method = catalog()[model], built(model, options)
    if killed_at is not None:
        killing(method, *killed_at)
    sampler = Sampler(
        SplitTiles(index, "train"),
        batch_size=spec.batch_size,
        crop_px=CROP,
        flips=True,
        seed=3,
        needs=entry.needs_of("tiny"),
        unpaired=entry.pairing == "unpaired",
        rank=rank(),
        n_ranks=n_ranks(),
    )
    history = History(model)
    watch = Watch(SplitTiles(index, "val"), crop_px=CROP, max_tiles=2, batch_size=2, device=CPU)
    state = train_method(
        method,
        sampler,
        spec=spec,
        seed=3,
        device=CPU,
        watch=watch,
        choice=find_choice(spec.select, crop_px=CROP, where="training"),
        resume=ResumeFolder(folder / "resume", key="k", rank=rank(), n_ranks=n_ranks()),
        history=history,
        samples=folder / "samples",
    )
    fresh = built(model, options)
    load_state(fresh, state, what=model)
    fresh.train(False)
    tiles = torch.stack([sampler.batch(0).he[0], sampler.batch(0).he[0].flip(1)]) if n_ranks() == 1 else None
    return list(history.rows()), fresh, tiles


class Killed(Exception):
    """Stands for a SIGKILL of all processes."""


def killing(method, step, turn):
    """Let a method die before a turn of a step."""
    real = method.turns

    def turns(batch, at):
        for number, given in enumerate(real(batch, at)):
            if (at.step, number) == (step, turn):
                raise Killed
            yield given

    method.turns = turns


class Uneven(nn.Module):
    """One number that every tile reaches, and one that only the tiles of the second process do."""

    def __init__(self):
        super().__init__()
        self.everywhere, self.there, self.nowhere = (nn.Parameter(torch.ones(2)) for _ in range(3))


class Overflowing(nn.Module):
    """Its gradient overflows on the second process in the first step."""

    def __init__(self, *, term=False):
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)
        nn.init.eye_(self.net.weight[:, :, 0, 0].data)
        self.term = term

    def players(self):
        return {"net": self.net}

    def optimizer(self, player):
        return SGD(self.net.parameters(), lr=0.1)

    def rate(self, player, at):
        return 1.0

    def averages(self):
        return {}

    def turns(self, batch, at):
        loss = self.net(batch.he).square().mean()
        broken = at.step == 0 and rank() == n_ranks() - 1
        if self.term:
            yield Turn("net", loss, logs={"odd": loss.detach() * (math.nan if broken else 1.0)})
            return
        yield Turn("net", loss * (3e38 if broken else 1.0) if broken else loss)


def overflow(index):
    """Weights after a step that one process could not take, and after the next; scales; skipped."""
    method = Overflowing()
    players = make_players(method, precision="fp16", device=CPU)
    sampler = Sampler(
        SplitTiles(index, "train"), batch_size=3, crop_px=8, flips=True, seed=3, rank=rank(), n_ranks=n_ranks()
    )
    told = []
    for step in range(2):
        at = Progress(step, 2, 2)
        ((_, terms),) = iterate(method, sampler.batch(step), at, players, n_tiles=3, precision="fp16")
        told.append(
            {
                "weight": method.net.weight.detach().flatten().tolist(),
                "scale": players["net"].scaler.get_scale(),
                "skipped": float(terms["skipped"]),
                "gradient": float(terms["gradient"]),
            }
        )
    return told


def error_of(index):
    """What each process says of a term that is nan on the last one only."""
    method = Overflowing(term=True)
    players = make_players(method, precision="fp32", device=CPU)
    sampler = Sampler(
        SplitTiles(index, "train"), batch_size=3, crop_px=8, flips=True, seed=3, rank=rank(), n_ranks=n_ranks()
    )
    history = History("r")
    ((_, terms),) = iterate(method, sampler.batch(0), Progress(0, 2, 2), players, n_tiles=3)
    try:
        history.note(0, {f"net.{name}": value for name, value in terms.items()})
    except HepipeError as error:
        return str(error)
    return ""


def flags():
    """Gradients after one sum; None where no process has one."""
    uneven = Uneven()
    loss = uneven.everywhere.sum() * (rank() + 1)
    if rank() == 1:
        loss = loss + uneven.there.sum()
    loss.backward()
    terms = sum_over_ranks(list(uneven.parameters()), torch.tensor([1.0 + rank()]))
    return [None if p.grad is None else p.grad.tolist() for p in uneven.parameters()], terms.tolist()


def norms(*, alone):
    """Outputs, gradients and statistics of three batch norms over five values; alone: one process sees them all."""
    random = torch.Generator().manual_seed(5)
    told = []
    for kind, shape in ((nn.BatchNorm1d, (5, 3)), (nn.BatchNorm2d, (5, 3, 4, 2)), (nn.BatchNorm3d, (5, 3, 2, 2, 2))):
        x, weights = torch.randn(shape, generator=random) * 3 + 7, torch.randn(shape, generator=random)
        mine = slice(None) if alone else (slice(0, 2) if rank() == 0 else slice(2, 5))
        for momentum in (0.1, None):
            network = nn.Sequential(kind(3, momentum=momentum))
            assert join_batch_norms(network) == ["0"]
            for _ in range(2):
                given = x[mine].clone().requires_grad_()
                output = network(given)
            # A loss in which tiles differ: the gradient flows through statistics of the other process' tiles too.
            (output * weights[mine]).sum().backward()
            gradients = [network[0].weight.grad, network[0].bias.grad]
            sum_over_ranks(list(network.parameters()), torch.zeros(1))
            gradients = [p.grad.tolist() for p in network.parameters()]
            state = {name: value.tolist() for name, value in network.state_dict().items()}
            told.append({"output": output.tolist(), "input": given.grad.tolist(), "own": gradients, "state": state})
    return told


def main(index, folder):
    torch.set_num_threads(1)
    with torchrun_group("cpu"):
        results = {}
        for name in TRAININGS:
            rows, method, _ = trained(index, folder / name, name)
            results[name] = rows
            if rank() == 0:
                torch.save(method.state_dict(), folder / f"{name}.pt")

        place = folder / "killed"
        try:
            trained(index, place, "cut, double", killed_at=(3, 1))
        except Killed:
            wait_for_all()
        if rank() == 1:  # one process' newest file is half of what it was
            newest = max(place.glob("resume/step-*-rank1.pt"))
            torch.save(torch.load(newest, weights_only=True) | {"step": 3}, place / "resume/step-00000003-rank1.pt")
            (place / "resume/step-00000003-rank0.pt").write_bytes(b"half")
        wait_for_all()
        results["resumed"] = trained(index, place, "cut, double")[0]

        results["overflow"] = overflow(index)
        results["error"] = error_of(index)
        results["flags"] = flags()
        results["norms"] = norms(alone=False)
        group = torch.distributed.distributed_c10d._get_default_group()
        results["wait_s"] = group._get_backend(CPU).options._timeout.total_seconds()
        assert results["wait_s"] == LONGEST_WAIT.total_seconds()
        (folder / f"rank{rank()}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
