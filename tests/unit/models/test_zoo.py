"""The contract, asked of every model of the zoo in its `tiny` preset."""

import ast
import inspect

import pytest
import torch

from hepipe.dataset.batch import Batch
from hepipe.models.catalog import CARRIED, ZOO, catalog
from hepipe.models.finished import finished_state, load_state
from hepipe.models.method import Fits, Method, Progress
from hepipe.models.resolved import zoo_module

MODELS = sorted(catalog())
N_STEPS, STEPS_PER_EPOCH = 40, 4


def side_of(entry, preset="tiny"):
    """The smallest side from 64 px on that the preset takes."""
    return next(side for side in range(64, 1025) if entry.takes(side, preset))


class Watched(dict):
    """Extras that remember what was read."""

    def __init__(self, *args):
        super().__init__(*args)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def make_batch(entry, preset, n_tiles=2):
    side = side_of(entry, preset)
    random = torch.Generator().manual_seed(7)
    he = torch.rand(n_tiles, 3, side, side, generator=random) * 2 - 1
    ihc = torch.rand(n_tiles, 3, side, side, generator=random) * 2 - 1
    extras = {
        "dab_mask": (ihc[:, :1] > 0).float(),
        "score": torch.arange(n_tiles) % 4,
        "loose_ihc": torch.rand(n_tiles, 3, side, side, generator=random) * 2 - 1,
    }
    names = tuple(f"c/{i}-0" for i in range(n_tiles))
    return Batch(names, he, ihc, ("HER2",) * n_tiles, Watched({need: extras[need] for need in entry.needs_of(preset)}))


def make(model, preset="tiny"):
    module = zoo_module(model)
    torch.manual_seed(0)
    return module.build(module.PRESETS[preset], {})


@pytest.fixture(params=MODELS)
def entry(request):
    return catalog()[request.param]


@pytest.fixture
def method(entry):
    return make(entry.name)


@pytest.fixture
def batch(entry):
    return make_batch(entry, "tiny")


def moments():
    """Starts, both sides of epoch switches, and the end."""
    return [Progress(step, N_STEPS, STEPS_PER_EPOCH) for step in (0, 3, 4, 19, 20, 21, N_STEPS - 1)]


def test_the_file_builds_what_the_contract_asks_for(entry, method):
    assert isinstance(method, Method)
    assert isinstance(method, torch.nn.Module)
    assert isinstance(method, Fits) == (not method.players())


def test_the_literals_are_those_of_the_module(entry):
    module = zoo_module(entry.name)
    assert tuple(module.PRESETS) == entry.presets
    assert entry.pairing == module.PAIRING
    assert {**entry.size} == module.SIZE
    assert entry.size.keys() - {"*"} <= module.PRESETS.keys()
    assert {**entry.parts} == module.PARTS
    assert {name: tuple(needs) for name, needs in module.NEEDS.items()} == dict(entry.needs)
    for stated in (module.NEEDS, module.PARTS):
        assert stated.keys() - {"*"} <= module.PRESETS.keys()
    for preset in entry.presets:
        assert set(entry.needs_of(preset)) <= set(CARRIED)
        config = module.PRESETS[preset]
        assert type(config) is module.Config
        assert module.Config.model_validate_json(config.model_dump_json()) == config
    signature = inspect.signature(module.build)
    assert list(signature.parameters) == ["config", "parts"]


def test_no_device_is_named_inside_a_model(entry):
    tree = ast.parse((ZOO / f"{entry.name}.py").read_text(encoding="utf-8"))
    calls = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert "cuda" not in calls


def test_players_are_disjoint_and_cover_what_trains(method):
    owners = {}
    for name, network in method.players().items():
        for parameter in network.parameters():
            if parameter.requires_grad:
                assert owners.setdefault(id(parameter), name) == name
    trainable = {name for name, parameter in method.named_parameters() if parameter.requires_grad}
    owned = {name for name, parameter in method.named_parameters() if id(parameter) in owners}
    assert owned == trainable
    for name, network in method.players().items():
        stepped = {id(p) for group in method.optimizer(name).param_groups for p in group["params"]}
        assert stepped == {id(p) for p in network.parameters() if p.requires_grad}, name


def test_a_turn_trains_its_own_player_only(method, batch):
    players = {name: [p for p in net.parameters() if p.requires_grad] for name, net in method.players().items()}
    optimizers = {name: method.optimizer(name) for name in players}
    for at in moments():
        for turn in method.turns(batch, at):
            assert turn.loss.dtype == torch.float32
            assert torch.isfinite(turn.loss)
            before = {name: [p.detach().clone() for p in ps] for name, ps in players.items()}
            turn.loss.backward(inputs=players[turn.player])
            assert any(p.grad is not None for p in players[turn.player]), "the loss misses its player"
            optimizers[turn.player].step()
            optimizers[turn.player].zero_grad(set_to_none=True)
            for name in players.keys() - {turn.player}:
                assert all(map(torch.equal, before[name], players[name])), name
            assert method.rate(turn.player, at) >= 0


def test_every_parameter_gets_a_gradient_within_a_few_steps(method, batch):
    touched = set()
    optimizers = {name: method.optimizer(name) for name in method.players()}
    for at in moments():
        for turn in method.turns(batch, at):
            parameters = [p for p in method.players()[turn.player].parameters() if p.requires_grad]
            turn.loss.backward(inputs=parameters)
            touched |= {id(p) for p in parameters if p.grad is not None and bool(p.grad.abs().sum() > 0)}
            # Behind a layer that starts at zero nothing learns before that layer has stepped.
            optimizers[turn.player].step()
            optimizers[turn.player].zero_grad(set_to_none=True)
    # Adding a constant before a norm that subtracts the mean changes nothing, so that such a bias may get none.
    missing = [name for name, p in method.named_parameters() if p.requires_grad and id(p) not in touched]
    assert [name for name in missing if not name.endswith("bias")] == []


def test_a_batch_carries_what_every_preset_reads(entry):
    module = zoo_module(entry.name)
    assert set(make_batch(entry, "tiny").extras) == set(entry.needs_of("tiny"))
    method, batch = make(entry.name), make_batch(entry, "tiny")
    for at in moments():
        for turn in method.turns(batch, at):
            turn.loss.detach()
    assert batch.extras.read == set(entry.needs_of("tiny"))
    assert callable(module.build)


def test_a_tile_is_stained_alike_alone_and_in_a_batch(entry, method):
    method.train(False)
    tiles = make_batch(entry, "tiny", n_tiles=3).he
    seeds = torch.tensor([5, 6, 7])
    together = method.stain(tiles, seeds=seeds)
    assert together.shape == tiles.shape
    assert bool((together.abs() <= 1 + 1e-6).all())
    assert not together.requires_grad
    for i in range(3):
        torch.testing.assert_close(
            method.stain(tiles[i : i + 1], seeds=seeds[i : i + 1])[0], together[i], atol=1e-5, rtol=0
        )
    assert torch.equal(method.stain(tiles, seeds=seeds), together)


def test_staining_leaves_the_model_and_the_random_state_as_they_were(entry, method):
    tiles = make_batch(entry, "tiny").he
    method.train(True)
    before = {name: value.clone() for name, value in finished_state(method).items()}
    random = torch.get_rng_state()
    method.stain(tiles, seeds=torch.tensor([1, 2]))
    assert torch.equal(torch.get_rng_state(), random)
    after = finished_state(method)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_finished_model_loads_into_a_fresh_method(entry, method, batch):
    if isinstance(method, Fits):
        method.fit([batch])
    for player, network in method.players().items():
        for parameter in network.parameters():
            with torch.no_grad():
                parameter.add_(0.01)
        assert player
    state = finished_state(method)
    torch.manual_seed(99)
    module = zoo_module(entry.name)
    other = module.build(module.PRESETS["tiny"], {})
    load_state(other, state, what="model")
    method.train(False)
    other.train(False)
    tiles, seeds = batch.he, torch.tensor([1, 2])
    assert torch.equal(other.stain(tiles, seeds=seeds), method.stain(tiles, seeds=seeds))


def test_a_stain_that_the_model_does_not_know_is_refused(entry, method):
    with pytest.raises(ValueError, match="to is 'her9'"):
        method.stain(make_batch(entry, "tiny").he, seeds=torch.tensor([1, 2]), to="her9")


def test_a_finished_model_of_another_shape_is_refused(entry, method):
    from hepipe.errors import StoreError

    state = finished_state(method)
    with pytest.raises(StoreError, match=r"unexpected odd\.weight"):
        load_state(method, {**state, "odd.weight": torch.zeros(1)}, what="model")
