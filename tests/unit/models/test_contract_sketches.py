"""Small methods after eight published models keep the contract in every turn; mypy checks this file too."""

from __future__ import annotations

import pytest
import torch
from contract_sketches import AtstNet, BciStainer, Consistency, Cssp2p, CycleGan, PspStain, SynDiff, Umdst, conv
from torch import nn

from hepipe.dataset.batch import Batch
from hepipe.models.method import Method, Part, Progress

NAMES = ("cssp2p", "cyclegan", "syndiff", "consistency", "pspstain", "bcistainer", "atst_net", "umdst")
AT = (Progress(0, 60, 2), Progress(1, 60, 2), Progress(50, 60, 2))  # both sides of every switch


def build(name: str) -> Method:
    """A small one of each; mypy checks here that they keep the contract."""
    torch.manual_seed(0)
    match name:
        case "cssp2p":
            return Cssp2p()
        case "cyclegan":
            return CycleGan()
        case "syndiff":
            return SynDiff()
        case "consistency":
            return Consistency(Part(conv(6).state_dict(), {}, ""))
        case "pspstain":
            return PspStain(Part(conv(3, 2).state_dict(), {}, ""))
        case "bcistainer":
            return BciStainer()
        case "atst_net":
            return AtstNet(Part(conv(3, 1).state_dict(), {}, ""))
        case "umdst":
            return Umdst()
    raise ValueError(name)


@pytest.fixture(params=NAMES)
def method(request: pytest.FixtureRequest) -> Method:
    return build(request.param)


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    he, ihc, loose = torch.rand((3, 2, 3, 16, 16), generator=random) * 2 - 1
    extras = {
        "score": torch.tensor([0, 3]),
        "dab_mask": ihc[:, 0] < 0,
        "nuclei_count": torch.tensor([3.0, 5.0]),
        "loose_ihc": loose,
    }
    return Batch(("a/0-0", "a/0-1"), he, ihc, ("her2", "her2"), extras)


def parameters(method: Method) -> dict[str, list[nn.Parameter]]:
    return {name: list(player.parameters()) for name, player in method.players().items()}


@pytest.mark.parametrize("at", AT, ids=lambda at: f"step{at.step}")
def test_a_sketched_turn_trains_its_own_player_only(method: Method, batch: Batch, at: Progress) -> None:
    players = parameters(method)
    optimizers = {name: method.optimizer(name) for name in players}
    torch.manual_seed(0)
    turned = []
    for turn in method.turns(batch, at):
        before = {name: [p.detach().clone() for p in ps] for name, ps in players.items()}
        turn.loss.backward(inputs=players[turn.player])
        assert any(p.grad is not None for p in players[turn.player]), "the loss misses its player"
        for name in players.keys() - {turn.player}:
            assert all(p.grad is None for p in players[name]), name
        optimizers[turn.player].step()
        optimizers[turn.player].zero_grad(set_to_none=True)
        assert not all(map(torch.equal, before[turn.player], players[turn.player]))
        for name in players.keys() - {turn.player}:
            assert all(map(torch.equal, before[name], players[name])), name
        turned.append(turn.player)
    assert len(turned) == len(set(turned)) >= 1


def test_sketched_players_are_disjoint_and_hold_every_trainable_parameter(method: Method) -> None:
    ids = [id(p) for ps in parameters(method).values() for p in ps]
    assert isinstance(method, nn.Module)
    assert sorted(ids) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert len(ids) == len(set(ids))


def test_every_sketched_parameter_gets_a_gradient_at_some_stage(method: Method, batch: Batch) -> None:
    players = parameters(method)
    seen: set[int] = set()
    for at in AT:
        for turn in method.turns(batch, at):
            turn.loss.backward(inputs=players[turn.player])
            seen |= {id(p) for p in players[turn.player] if p.grad is not None}
    assert seen == {id(p) for ps in players.values() for p in ps}


def test_a_sketched_average_is_a_frozen_copy_of_what_it_follows(method: Method, batch: Batch) -> None:
    for average in method.averages().values():
        assert average.player in method.players()
        assert average.of.state_dict().keys() == average.into.state_dict().keys()
        assert not any(p.requires_grad for p in average.into.parameters())
        assert all(0 <= average.decay(at) <= 1 for at in AT)


def test_a_sketch_stains_a_tile_alike_alone_and_in_a_batch(method: Method, batch: Batch) -> None:
    method.train(False)
    with torch.no_grad():
        both = method.stain(batch.he, seeds=torch.tensor([3, 4]))
        alone = method.stain(batch.he[1:], seeds=torch.tensor([4]))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=0)


def test_a_frozen_part_is_saved_by_reference_only() -> None:
    method = build("consistency")
    assert not any("teacher" in name for name in method.state_dict())


def test_the_comparator_of_bcistainer_stops_after_a_third(batch: Batch) -> None:
    method = build("bcistainer")
    assert [[turn.player for turn in method.turns(batch, at)] for at in (AT[0], AT[2])] == [
        ["comparator", "discriminator", "generator"],
        ["discriminator", "generator"],
    ]


def test_the_mixing_weight_of_umdst_is_clipped_after_its_step(batch: Batch) -> None:
    method = build("umdst")
    for turn in method.turns(batch, AT[0]):
        if turn.player == "generator":
            with torch.no_grad():
                method.players()["generator"].get_parameter("rho").add_(1)
    assert method.players()["generator"].get_parameter("rho").detach().max() == 1.0
