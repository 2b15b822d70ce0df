"""Forward passes made again, and pieces of a batch, against graphs that are kept and whole batches."""

import pytest
import torch
from test_zoo import make_batch
from torch import nn

from hepipe.models.catalog import catalog
from hepipe.models.method import Progress
from hepipe.models.recompute import Forward
from hepipe.models.resolved import zoo_module
from hepipe.training.loop import iterate, make_players

CPU = torch.device("cpu")
RECOMPUTING = [name for name in sorted(catalog()) if "recompute" in zoo_module(name).Config.model_fields]
N_STEPS = 2


def built(model, **options):
    module = zoo_module(model)
    torch.manual_seed(0)
    preset = module.PRESETS["tiny"]
    return module.build(type(preset).model_validate({**dict(preset), **options}), {})


def trained(model, *, pieces=1, precision="fp32", **options):
    """All terms and the whole state after some steps."""
    method, entry = built(model, **options), catalog()[model]
    players = make_players(method, precision=precision, device=CPU)
    batch, told = make_batch(entry, "tiny", n_tiles=4 if pieces > 1 else 2), []
    for step in range(N_STEPS):
        torch.manual_seed(step)
        at = Progress(step, N_STEPS, 1, seed=step)
        for player, terms in iterate(method, batch, at, players, pieces=pieces, precision=precision):
            told.append((player, {name: float(value) for name, value in terms.items()}))
    return told, {name: value for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}


def test_models_that_keep_a_graph_over_a_turn_can_recompute():
    assert {"asp", "cssp2p", "cut", "cut_pyramid", "pix2pix", "pyramid_pix2pix"} <= set(RECOMPUTING)


@pytest.mark.parametrize("model", RECOMPUTING)
def test_a_recomputed_training_ends_with_identical_weights_and_buffers(model):
    kept, again = (trained(model, recompute=recompute) for recompute in (False, True))
    assert kept[0] == again[0]
    assert kept[1].keys() == again[1].keys()
    for name, value in kept[1].items():
        assert torch.equal(value, again[1][name]), name


@pytest.mark.parametrize("model", RECOMPUTING)
def test_in_bf16_recomputed_turns_lose_the_same_and_gradients_differ_by_rounding(model):
    kept, again = (trained(model, recompute=recompute, precision="bf16")[0] for recompute in (False, True))
    for (_, one), (_, other) in zip(kept[:2], again[:2], strict=True):
        # Passes in one autocast share a cast weight, where their gradients meet in bf16.
        assert other.pop("gradient") == pytest.approx(one.pop("gradient"), rel=1e-2)
        assert one == other


@pytest.mark.parametrize("model", RECOMPUTING)
def test_pieces_recompute_to_the_same_weights(model):
    kept, again = (trained(model, recompute=recompute, pieces=2) for recompute in (False, True))
    assert kept[0] == again[0]
    assert all(torch.equal(value, again[1][name]) for name, value in kept[1].items())


class Noisy(nn.Module):
    """Draws, counts its passes and moves statistics: everything that a second pass could do twice."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Conv2d(4, 3, 1))
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x):
        self.passes += 1
        return self.net(x) * self.passes


def test_the_second_pass_draws_the_same_and_leaves_buffers_and_random_numbers_where_they_were():
    tiles = torch.randn(2, 3, 4, 4)
    network = Noisy()
    torch.manual_seed(1)
    forward = Forward(network, tiles, again=True)
    other = network(tiles)  # moves the buffers and the random numbers on
    assert not forward.values.requires_grad
    buffers = {name: value.clone() for name, value in network.named_buffers()}
    random = torch.get_rng_state()
    output = forward.with_graph()
    assert output.requires_grad
    assert torch.equal(output.detach(), forward.values)
    assert not torch.equal(output, other)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, buffers[name]) for name, value in network.named_buffers())
    (output.sum() + other.sum()).backward()  # neither graph was written over


def test_a_kept_pass_is_made_once():
    network = Noisy()
    forward = Forward(network, torch.randn(2, 3, 4, 4), again=False)
    assert forward.with_graph() is forward.with_graph()
    assert float(network.passes) == 1


def saved_bytes(model, **options):
    """Bytes that are kept for backward passes while the first turn waits for its step."""
    method, entry = built(model, **options), catalog()[model]
    batch = make_batch(entry, "tiny")
    kept = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        next(method.turns(batch, Progress(0, 1, 1)))
    return sum(kept.values())


@pytest.mark.parametrize("model", RECOMPUTING)
def test_recomputing_keeps_less_over_the_first_turn(model):
    assert saved_bytes(model, recompute=True) < 0.8 * saved_bytes(model, recompute=False)


def double(model, *, pieces, monkeypatch, **options):
    """As `trained`, in double precision, where rounding cannot hide a difference or make one."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    try:
        method, entry = built(model, **options), catalog()[model]
        players = make_players(method, precision="fp32", device=CPU)
        batch, told = make_batch(entry, "tiny", n_tiles=3)._each(torch.Tensor.double), []
        for step in range(N_STEPS):
            for _, terms in iterate(method, batch, Progress(step, N_STEPS, 1, seed=step), players, pieces=pieces):
                told.append({name: float(value) for name, value in terms.items()})
        return told
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("cut", {}),
        ("cut", {"flip_equivariance": True, "identity_nce": False, "recompute": True}),
        ("pix2pix", {"norm": "instance", "dropout": 0.0}),
        ("bbdm", {}),
    ],
)
def test_pieces_train_like_the_whole_batch_where_there_are_no_batch_statistics(model, options, monkeypatch):
    whole, pieces = (double(model, pieces=n, monkeypatch=monkeypatch, **options) for n in (1, 2))
    for one, other in zip(whole, pieces, strict=True):
        assert other == pytest.approx(one, rel=1e-9, abs=1e-9)


def test_a_batch_norm_sees_the_tiles_of_a_piece_only(monkeypatch):
    whole, pieces = (double("pix2pix", pieces=n, monkeypatch=monkeypatch, dropout=0.0) for n in (1, 2))
    assert abs(whole[-1]["loss"] - pieces[-1]["loss"]) > 1e-4
