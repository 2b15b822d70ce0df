"""What BCIstainer does beyond the contract."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from hepipe.dataset.batch import Batch
from hepipe.errors import ConfigError, WeightsError
from hepipe.models.method import Progress
from hepipe.models.resolved import resolve_run
from hepipe.models.schedules import warmup_cosine
from hepipe.models.zoo import bcistainer
from hepipe.models.zoo.bcistainer import AccumulatedAdamW, Bcistainer, Config, average_decay, from_released
from hepipe.networks.styled import ModBlock
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.training.average import move

TINY = bcistainer.PRESETS["tiny"]
EARLY, LATE = Progress(0, 300, 2, seed=1), Progress(200, 300, 2, seed=1)


def tiny(**options: object) -> Bcistainer:
    torch.manual_seed(0)
    return Bcistainer(Config.model_validate({**TINY.model_dump(), **options}))


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    he, ihc = torch.rand((2, 2, 3, 64, 64), generator=random) * 2 - 1
    return Batch(("a/0-0", "a/0-1"), he, ihc, ("her2", "her2"), {"score": torch.tensor([3, 0])})


def strengthen(method: Bcistainer) -> None:
    """Fresh weights are so small that every picture is grey; these draw one of some contrast."""
    with torch.no_grad():
        for parameter in method.average.parameters():
            parameter.mul_(10 if parameter.ndim == 4 else 1)


def players_of(method: Bcistainer, batch: Batch, at: Progress) -> list[str]:
    return [turn.player for turn in method.turns(batch, at)]


def test_the_four_released_configurations_differ_in_style_and_attention_alone() -> None:
    presets = bcistainer.PRESETS
    assert presets["paper"] == presets["mod_attention"]
    for name, style, attention in (("mod", "mod", False), ("ada", "ada", False), ("ada_attention", "ada", True)):
        assert presets[name] == presets["paper"].model_copy(update={"style": style, "attention": attention})


def test_the_comparator_trains_in_the_first_third_and_compares_afterwards(batch: Batch) -> None:
    method = tiny()
    assert players_of(method, batch, EARLY) == ["comparator", "discriminator", "generator"]
    assert players_of(method, batch, Progress(99, 300, 2))[0] == "comparator"
    assert players_of(method, batch, Progress(100, 300, 2)) == ["discriminator", "generator"]
    early, late = ([*method.turns(batch, at)][-1] for at in (EARLY, LATE))
    assert "comparator" not in early.logs
    assert float(late.logs["comparator"].detach()) > 0


def test_comparing_moves_neither_the_comparator_nor_its_statistics_and_draws_no_dropout(batch: Batch) -> None:
    method = tiny(dropout=0.9)
    before = copy.deepcopy(method.comparator.state_dict())
    terms = [[*method.turns(batch, LATE)][-1].logs["comparator"].detach() for _ in range(2)]
    assert torch.equal(*terms)
    assert all(torch.equal(value, before[name]) for name, value in method.comparator.state_dict().items())
    assert method.comparator.training


def test_a_picture_like_the_real_one_is_like_it_for_the_comparator(batch: Batch) -> None:
    method = tiny()
    same = dataclasses.replace(batch, he=batch.ihc)
    outputs = method.generator(same.he)._replace(ihc=batch.ihc)
    turn = method.generator_turn(same, outputs, LATE, compare=True)
    assert float(turn.logs["comparator"].detach()) == pytest.approx(0, abs=1e-6)
    assert float(turn.logs["ssim"].detach()) == pytest.approx(0, abs=1e-5)


def test_smoothed_targets_belong_to_the_tile_whatever_batch_it_is_in(batch: Batch) -> None:
    method = tiny(norm="instance")
    virtual = method.generator(batch.he).ihc.detach()
    both = method.discriminator_turn(batch, virtual, EARLY).loss
    halves = [method.discriminator_turn(p, virtual[i : i + 1], EARLY).loss for i, p in enumerate(batch.pieces(2))]
    torch.testing.assert_close(torch.stack(halves).mean(), both)
    other = method.discriminator_turn(batch, virtual, dataclasses.replace(EARLY, seed=2)).loss
    assert not torch.equal(both, other)


def test_without_levels_no_score_is_read_and_no_comparator_is_there(batch: Batch) -> None:
    method = tiny(levels=False)
    unlabelled = dataclasses.replace(batch, extras={})
    assert players_of(method, unlabelled, EARLY) == ["discriminator", "generator"]
    assert players_of(method, unlabelled, LATE) == ["discriminator", "generator"]
    assert not [name for name in method.state_dict() if "classify" in name or "comparator" in name]


def test_levels_without_scores_are_an_error_that_names_a_preset(batch: Batch) -> None:
    with pytest.raises(ConfigError, match="take preset paper"):
        next(tiny().turns(dataclasses.replace(batch, extras={}), EARLY))


def test_running_the_generator_again_changes_no_loss_and_no_gradient(batch: Batch) -> None:
    losses, gradients, statistics = [], [], []
    for again in (False, True):
        method = tiny(recompute=again)
        torch.manual_seed(3)
        *_, last = method.turns(batch, LATE)
        losses.append(last.loss.detach())
        gradients.append(torch.autograd.grad(last.loss, method.generator.inconv.conv[1].weight)[0])
        statistics.append(method.generator.inconv.conv[2].running_mean)
    for pair in (losses, gradients, statistics):
        torch.testing.assert_close(*pair, rtol=1e-6, atol=1e-8)


def test_the_rate_starts_at_zero_is_full_after_a_third_and_ends_near_zero() -> None:
    method = tiny()
    rates = [method.rate("generator", Progress(step, 300, 2)) for step in range(300)]
    assert rates[0] == 0
    assert rates[50] == pytest.approx(0.5)
    assert rates[100] == 1
    assert rates[200] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-3
    assert method.rate("comparator", Progress(0, 300, 2)) == 1
    assert warmup_cosine(0.0, warmup=0, epochs=10) == 1


def test_the_average_copies_at_first_then_keeps_two_thirds_and_more_up_to_its_limit() -> None:
    decays = [average_decay(update, after=100, largest=0.99) for update in (1, 102, 103, 104, 199, 200, 5000)]
    assert decays == pytest.approx([0, 0, 2 / 3, 3 / 4, 98 / 99, 0.99, 0.99])


def test_of_every_ten_updates_only_the_first_moves_the_average() -> None:
    decays = [average_decay(update, after=20, largest=0.99, every=10) for update in (1, 2, 21, 30, 31, 32, 41)]
    # The first behind `after` copies; the next knows how many updates there were, not how many moved it.
    assert decays == pytest.approx([0, 1, 0, 1, 0, 1, 1 - 1 / 21])


def test_the_average_stains_and_holds_the_statistics_of_the_generator_after_a_step(batch: Batch) -> None:
    method = tiny()
    before = method.stain(batch.he, seeds=torch.tensor([1, 2]))
    with torch.no_grad():
        method.generator(batch.he)
        for parameter in method.generator.parameters():
            parameter.add_(0.05)
    assert torch.equal(method.stain(batch.he, seeds=torch.tensor([1, 2])), before)
    move(method.averages()["generator"], EARLY)
    for name, value in method.generator.state_dict().items():
        assert torch.equal(method.average.state_dict()[name], value), name
    assert not torch.equal(method.stain(batch.he, seeds=torch.tensor([1, 2])), before)


def test_augmented_staining_depends_less_on_how_a_tile_lies(batch: Batch) -> None:
    seeds = torch.tensor([1, 2])
    plain, averaged = tiny(), tiny(tta=True)
    strengthen(plain)
    averaged.load_state_dict(plain.state_dict())
    turned = batch.he.rot90(1, (2, 3))

    def change(method: Bcistainer) -> float:
        difference = method.stain(turned, seeds=seeds) - method.stain(batch.he, seeds=seeds).rot90(1, (2, 3))
        return float(difference.abs().mean())

    assert change(averaged) < change(plain) / 2


def test_as_released_the_output_is_cut_down_to_whole_levels(batch: Batch) -> None:
    plain, released, seeds = tiny(), tiny(truncate=True), torch.tensor([1, 2])
    strengthen(plain)
    released.load_state_dict(plain.state_dict())
    exact, cut = ((method.stain(batch.he, seeds=seeds).double() + 1) * 127.5 for method in (plain, released))
    torch.testing.assert_close(cut, cut.round(), atol=1e-4, rtol=0)
    assert bool(((exact - cut) > -1e-3).all())
    assert bool(((exact - cut) < 1 + 1e-3).all())
    assert bool(((exact - cut) > 0.6).any())


def test_gradients_add_up_only_as_released() -> None:
    def path(kind: type[torch.optim.AdamW]) -> Tensor:
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = kind([weight], lr=0.1)
        for gradient in (1.0, -1.0, -1.0):
            weight.grad = torch.tensor([gradient])
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return weight.detach()

    summed = torch.nn.Parameter(torch.zeros(1))
    rival = torch.optim.AdamW([summed], lr=0.1)
    for gradient in (1.0, 0.0, -1.0):
        summed.grad = torch.tensor([gradient])
        rival.step()
    torch.testing.assert_close(path(AccumulatedAdamW), summed.detach())
    assert not torch.allclose(path(torch.optim.AdamW), summed.detach())
    assert type(tiny(accumulate_comparator_grad=True).optimizer("comparator")) is AccumulatedAdamW
    assert type(tiny(accumulate_comparator_grad=True).optimizer("generator")) is torch.optim.AdamW


def test_summed_gradients_are_in_the_state_that_a_resume_file_holds() -> None:
    weights = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    first, second = (AccumulatedAdamW([weight], lr=0.1) for weight in weights)
    weights[0].grad = torch.tensor([1.0, 2.0, -3.0])
    first.step()
    weights[1].data.copy_(weights[0].data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for weight, optimizer in zip(weights, (first, second), strict=True):
        weight.grad = torch.tensor([0.5, -4.0, 0.0])
        optimizer.step()
    assert torch.equal(weights[0], weights[1])


def test_a_crop_of_another_side_says_which_option_to_set(batch: Batch) -> None:
    run = RunSpec(model="bcistainer", dataset="bci", training=TrainingSpec(crop_px=512))
    with pytest.raises(ConfigError, match=r"runs\.a\.options\.full_size: 1024 px.*512 px.*full_size: 512, or set"):
        resolve_run("a", run)
    assert resolve_run("a", run.model_copy(update={"options": {"full_size": 512}})).config["full_size"] == 512
    with pytest.raises(ConfigError, match=r"full_size: 128 px.*64 px.*set training\.crop_px: 128"):
        next(tiny(full_size=128).turns(batch, EARLY))
    odd = run.model_copy(update={"training": TrainingSpec(crop_px=384)})
    with pytest.raises(ConfigError, match=r"384 px, and the networks are built for one side; set training\.crop_px"):
        resolve_run("a", odd)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"full_size": 96}, "power of two"),
        ({"full_size": 32, "encoder_blocks": 3}, "power of two from 64 px"),
        ({"judge_layers": 4}, "take fewer"),
        ({"warmup_epochs": 150}, "less than epochs"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny(**options)


def test_one_tile_a_step_trains_every_player_with_batch_norm(batch: Batch) -> None:
    method, one = tiny(), batch.pieces(2)[0]
    for at in (EARLY, LATE):
        for turn in method.turns(one, at):
            parameters = [*method.players()[turn.player].parameters()]
            gradients = torch.autograd.grad(turn.loss, parameters, allow_unused=True)
            assert all(bool(g.isfinite().all()) for g in gradients if g is not None), turn.player


def test_a_style_changes_the_picture_and_a_plain_block_ignores_it() -> None:
    features, styles = torch.randn(1, 16, 8, 8), torch.randn(2, 1, 16)
    for style in ("mod", "ada", "none"):
        generator = tiny(style=style).generator.eval()
        with torch.no_grad():
            one, other = (generator.middle(features, each) for each in styles)
        assert torch.equal(one, other) == (style == "none")


def released_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the authors' checkpoint names them."""
    theirs = {}
    for name, tensor in state.items():
        block = name.startswith("decoder1") and name.rpartition(".")[0].rpartition(".")[2] in ("conv1", "conv2")
        if block:
            name = name.replace(".weight", ".0.weight.data").replace(".bias", ".0.bias")
        theirs[name] = tensor
    return {f"module.{name}": tensor for name, tensor in theirs.items()}


def test_the_authors_checkpoints_load_under_our_names() -> None:
    config = Config.model_validate({**TINY.model_dump(), "style": "mod"})
    method, other = tiny(), Bcistainer(config)
    for network in ("generator", "discriminator", "comparator"):
        theirs = released_names(getattr(method, network).state_dict())
        assert network != "generator" or "module.decoder1.0.conv1.0.weight.data" in theirs
        getattr(other, network).load_state_dict(from_released(theirs, network=network, config=config))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(other.generator.eval()(x).ihc, method.generator.eval()(x).ihc)


def test_the_authors_checkpoints_without_batch_norm_and_dropout_load_too() -> None:
    method = tiny(style="mod", norm="instance")
    for network, biased in (("generator", "module.decoder1.0.conv1.0.bias"), ("comparator", "")):
        # Without dropout theirs has nothing before the classifier.
        named = released_names(getattr(method, network).state_dict())
        theirs = {name.replace("head.1.", "head.0."): tensor for name, tensor in named.items()}
        assert "module.classify_head.0.weight" in theirs
        assert not biased or biased in theirs
        getattr(method, network).load_state_dict(from_released(theirs, network=network, config=method.config))


def test_without_its_linear_layers_a_modulated_convolution_sees_the_style_itself() -> None:
    block = ModBlock(4, 4, linear=False)
    x, style = torch.randn(2, 4, 5, 5), torch.randn(2, 4)
    assert not [name for name in block.state_dict() if name.startswith("style")]
    once = F.leaky_relu(block.conv1(x, style), 0.2)
    expected = (x + F.leaky_relu(block.conv2(once, style), 0.2)) / 2**0.5
    torch.testing.assert_close(block(x, style), expected)


def test_a_checkpoint_of_another_depth_lists_what_differs() -> None:
    theirs = released_names(tiny().generator.state_dict())
    theirs["module.odd"] = theirs.pop("module.inconv.conv.1.weight")
    with pytest.raises(WeightsError, match=r"missing: inconv\.conv\.1\.weight; unexpected: odd"):
        from_released(theirs, network="generator", config=TINY)
