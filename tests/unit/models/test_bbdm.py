"""BBDM as a method: draws by tile, its average, its rates, and the authors' checkpoint."""

import io

import pytest
import torch
from pydantic import ValidationError

from hepipe.dataset.batch import Batch
from hepipe.errors import WeightsError
from hepipe.models.method import Progress
from hepipe.models.plateau import Plateau
from hepipe.models.zoo.bbdm import PRESETS, Bbdm, Config, from_released
from hepipe.training.average import move

TINY = PRESETS["tiny"]


def made(**options):
    """A tiny method whose network and average say something."""
    torch.manual_seed(0)
    method = Bbdm(Config.model_validate({**TINY.model_dump(), **options}))
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    method.average.load_state_dict(method.network.state_dict())
    return method


def batch_of(n=3, side=8):
    random = torch.Generator().manual_seed(1)
    he, ihc = (torch.rand(2, n, 3, side, side, generator=random) * 2 - 1).unbind()
    return Batch(tuple(f"c/{i}" for i in range(n)), he, ihc, ("HER2",) * n)


def loss_of(method, batch, at):
    (turn,) = method.turns(batch, at)
    return float(turn.loss.detach())


@pytest.mark.parametrize(
    ("preset", "million", "multiple"),
    [("paper", 136.971523, 32), ("half", 43.435331, 32), ("released", 237.094787, 4), ("nocond", 136.968067, 32)],
)
def test_presets_have_the_size_of_the_specification(preset, million, multiple):
    with torch.device("meta"):
        method = Bbdm(PRESETS[preset])
    assert sum(p.numel() for p in method.network.parameters()) == round(million * 1e6)
    assert 2 ** (len(PRESETS[preset].multipliers) - 1) == multiple


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_side_that_the_file_states_is_what_the_levels_halve(preset):
    from hepipe.models.catalog import catalog

    config = PRESETS[preset]
    needed = config.patch_px * 2 ** (len(config.multipliers) - 1)
    assert catalog()["bbdm"].takes(needed, preset)
    assert not catalog()["bbdm"].takes(needed + needed // 2, preset)


@pytest.mark.parametrize("options", [{}, {"condition": "nocond", "objective": "noise"}, {"loss": "l2", "patch_px": 2}])
def test_pieces_of_a_batch_draw_what_the_whole_draws(options):
    method, batch, at = made(**options), batch_of(), Progress(3, 40, 4, seed=9)
    pieces = [loss_of(method, piece, at) for piece in batch.pieces(3)]
    assert loss_of(method, batch, at) == pytest.approx(sum(pieces) / 3, rel=1e-5)
    assert len({round(piece, 6) for piece in pieces}) == 3
    assert loss_of(method, batch, at) != loss_of(method, batch, Progress(3, 40, 4, seed=10))


def test_training_draws_nothing_from_the_global_generator():
    method, batch = made(), batch_of()
    before = torch.get_rng_state()
    loss_of(method, batch, Progress(3, 40, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_bridge_is_float32_under_autocast():
    method, batch, at = made(), batch_of(), Progress(3, 40, 4)
    exact, seen = loss_of(method, batch, at), []
    method.network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (turn,) = method.turns(batch, at)
    assert seen == [torch.float32]
    assert turn.loss.dtype == torch.float32
    assert 0 < abs(float(turn.loss.detach()) - exact) < 0.01 * exact


def test_the_average_stains_and_the_network_does_not():
    method, tiles, seeds = made().eval(), batch_of().he, torch.tensor([1, 2, 3])
    before = method.stain(tiles, seeds=seeds)
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.zero_()
    assert torch.equal(method.stain(tiles, seeds=seeds), before)
    assert not torch.equal(method.stain(tiles, seeds=seeds + 1), before)
    method.train()
    assert not method.average.training
    assert not any(parameter.requires_grad for parameter in method.average.parameters())


@pytest.mark.parametrize(
    ("options", "decays"),
    [
        ({}, {0: 0.1, 9: 10 / 19, 10**6: 0.9999}),
        ({"ema_warmup": False, "ema_decay": 0.5}, {0: 0.5, 9: 0.5}),
        # As released: a copy before the start, then a move every eighth step.
        (
            {"ema_warmup": False, "ema_decay": 0.995, "ema_every": 8, "ema_start": 16},
            {0: 1.0, 6: 1.0, 7: 0.0, 8: 1.0, 15: 0.995, 16: 1.0, 23: 0.995},
        ),
    ],
)
def test_the_average_moves_as_fast_as_its_step_says(options, decays):
    method = made(**options)
    for step, decay in decays.items():
        assert method.decay(Progress(step, 10**7, 4)) == pytest.approx(decay), step
    (average,) = method.averages().values()
    with torch.no_grad():
        method.network.head[2].bias.fill_(1.0)
        method.average.head[2].bias.fill_(0.0)
    step = max(decays)
    move(average, Progress(step, 10**7, 4))
    torch.testing.assert_close(method.average.head[2].bias, torch.full((3,), 1 - decays[step]))


def test_the_rate_warms_up_and_falls_to_its_floor():
    method = made(lr=1e-4, lr_floor=1e-6, warmup=1000)
    rates = [method.rate("network", Progress(step, 20_000, 100)) for step in range(20_000)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[999] == rates[1000] == 1.0
    assert rates == sorted(rates[:1000]) + sorted(rates[1000:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=1e-6)
    # A short run warms up over its tenth.
    assert method.rate("network", Progress(4, 50, 10)) == 1.0


@pytest.mark.parametrize("patience", [0, 3])
def test_a_plateau_is_torchs_and_goes_on_after_a_resume(patience):
    random = torch.Generator().manual_seed(5)
    losses = (1 + 0.3 * torch.randn(200, generator=random)).abs().tolist()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience, cooldown=4, min_lr=0.01, threshold=1e-4, eps=0
    )
    settings = {"factor": 0.5, "patience": patience, "cooldown": 4, "floor": 0.01}
    ours = Plateau(**settings)
    for step, loss in enumerate(losses):
        theirs.step(loss)
        ours.watch(loss, Progress(step, 200, 10))
        # Further pieces of the same batch change nothing.
        ours.watch(-1.0, Progress(step, 200, 10))
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"]), step
        if step == 77:
            file = io.BytesIO()
            torch.save(ours.state_dict(), file)
            file.seek(0)
            ours = Plateau(**settings)
            ours.load_state_dict(torch.load(file, weights_only=True))
    assert ours.factor == 0.01


def test_released_lets_the_rate_fall_with_the_loss_of_single_steps():
    method, batch = made(schedule="plateau", plateau_patience=1, lr_floor=5e-7), batch_of()
    assert method.rate("network", Progress(0, 40, 4)) == 1.0
    for step in range(5):
        for _ in method.turns(batch, Progress(step, 40, 4, seed=1)):
            pass
    assert method.rate("network", Progress(5, 40, 4)) == 0.5
    assert "plateau._extra_state" in method.state_dict()
    assert "plateau._extra_state" not in made().state_dict()


def test_the_authors_checkpoint_loads_without_its_tables():
    config = Config.model_validate({**TINY.model_dump(), "attention_factors": ()})
    method = Bbdm(config)
    names = {
        "down": "input_blocks",
        "middle": "middle_block",
        "up": "output_blocks",
        "time": "time_embed",
        "head": "out",
    }
    inside = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3"}
    inside |= {"skip": "skip_connection", "time": "emb_layers.1"}
    state = {"m_t": torch.zeros(40), "variance_t": torch.zeros(40)}
    for name, tensor in method.network.state_dict().items():
        first, *path = name.split(".")
        if name.startswith("middle.1."):
            layer = path[1]
            path = [{"out": "proj_out"}.get(part, part) for part in path]
            if layer == "qkv":
                tensor = tensor.unflatten(0, (3, method.network.middle[1].heads, -1)).transpose(0, 1).flatten(0, 2)
            tensor = tensor[..., None] if path[-1] == "weight" and layer != "norm" else tensor
        else:
            path = [inside.get(part, part) for part in path]
        state[f"denoise_fn.{names[first]}.{'.'.join(path)}"] = tensor
    loaded = from_released(state, network="network", config=config)
    for name, tensor in method.network.state_dict().items():
        assert torch.equal(loaded[name], tensor), name
    with pytest.raises(WeightsError, match=r"bbdm network: missing: middle\.1\.qkv\.bias"):
        from_released({k: v for k, v in state.items() if "qkv" not in k}, network="network", config=config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "noise", "clip": False}, "needs clip: true"),
        ({"steps": 41}, "41 steps over a bridge of 40 times; 3 to 40 expected"),
        ({"eta": 1.5}, "less than or equal to 1"),
        ({"attention_factors": (8,)}, r"attention_factors \(8,\): the levels have \[1, 2\]"),
        ({"groups": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_where_the_run_is_resolved(options, message):
    with pytest.raises(ValidationError, match=message):
        Config.model_validate({**TINY.model_dump(), **options})


def test_fast_staining_draws_once_a_tile_and_stays_in_range():
    method, tiles = made(eta=0.0, steps=6), batch_of().he
    calls = []
    method.average.register_forward_hook(lambda *_: calls.append(1))
    stained = method.stain(tiles, seeds=torch.tensor([1, 2, 3]))
    assert len(calls) == 7
    assert bool((stained.abs() <= 1).all())
    assert torch.equal(stained, method.stain(tiles, seeds=torch.tensor([1, 2, 3])))
