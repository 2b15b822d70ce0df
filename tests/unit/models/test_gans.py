"""What Pyramid pix2pix and CSSP2P do beyond the contract."""

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hepipe.dataset.batch import Batch
from hepipe.errors import ConfigError, WeightsError
from hepipe.models.method import Part, Progress
from hepipe.models.resolved import resolve_run
from hepipe.models.schedules import linear_decay, share_epochs
from hepipe.models.zoo import asp, cssp2p, cut, pyramid_pix2pix
from hepipe.specs.training import RunSpec, TrainingSpec

AT = Progress(0, 10, 5)


@pytest.fixture
def batch() -> Batch:
    random = torch.Generator().manual_seed(1)
    he, ihc = torch.rand((2, 2, 3, 32, 32), generator=random) * 2 - 1
    return Batch(("a/0-0", "a/0-1"), he, ihc, ("her2", "her2"))


def test_the_linear_schedule_of_pix2pix_ends_above_zero_at_epoch_end_and_at_zero_at_epoch_start() -> None:
    end = [linear_decay(epoch, constant=3, decay=2) for epoch in range(5)]
    start = [linear_decay(epoch + 1, constant=3, decay=2) for epoch in range(5)]
    assert end == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])
    assert start == pytest.approx([1, 1, 2 / 3, 1 / 3, 0])


def test_a_run_of_the_published_length_keeps_the_published_epochs_and_a_shorter_one_their_share() -> None:
    assert share_epochs(Progress(0, 200 * 7, 7), constant=100, decay=100) == (100, 100)
    assert share_epochs(Progress(0, 40, 4), constant=30, decay=10) == (8, 2)
    assert share_epochs(Progress(0, 3, 100), constant=100, decay=100) == (1, 0)


def test_the_rate_of_pyramid_pix2pix_is_full_at_first_and_never_negative() -> None:
    for preset in ("paper", "released"):
        method = pyramid_pix2pix.PyramidPix2pix(
            pyramid_pix2pix.PRESETS["tiny"].model_copy(update={"lr_step": pyramid_pix2pix.PRESETS[preset].lr_step})
        )
        rates = [method.rate("generator", Progress(step, 40, 4)) for step in range(40)]
        assert rates[0] == 1
        assert rates == sorted(rates, reverse=True)
        assert (rates[-1] == 0) == (preset == "released")


def tiny_train_stats() -> pyramid_pix2pix.PyramidPix2pix:
    torch.manual_seed(0)
    config = pyramid_pix2pix.PRESETS["tiny"].model_copy(update={"inference_mode": "train_stats"})
    return pyramid_pix2pix.PyramidPix2pix(config)


def test_staining_by_train_statistics_is_alike_alone_and_in_a_batch(batch: Batch) -> None:
    method = tiny_train_stats()
    both = method.stain(batch.he, seeds=torch.tensor([3, 4]))
    torch.testing.assert_close(method.stain(batch.he[1:], seeds=torch.tensor([4])), both[1:])
    assert not torch.equal(method.stain(batch.he[1:], seeds=torch.tensor([5])), both[1:])


def test_staining_leaves_the_statistics_the_mode_and_the_random_numbers_alone(batch: Batch) -> None:
    method = tiny_train_stats()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    torch.manual_seed(7)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    method.stain(batch.he, seeds=torch.tensor([3, 4]))
    assert torch.equal(torch.rand(3), drawn)
    assert method.generator.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    method.generator(batch.he)
    assert int(method.state_dict()["generator.model.2.num_batches_tracked"]) == 1


@pytest.mark.parametrize("module", [pyramid_pix2pix, cssp2p])
def test_a_direction_that_a_model_does_not_have_is_refused(module: object, batch: Batch) -> None:
    method = module.build(module.PRESETS["tiny"], {})  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="stains H&E as ihc only"):
        method.stain(batch.he, seeds=torch.tensor([0, 1]), to="he")


def test_a_checkpoint_of_pyramid_pix2pix_goes_in_through_data_parallel_names() -> None:
    config = pyramid_pix2pix.PRESETS["tiny"]
    method = pyramid_pix2pix.PyramidPix2pix(config)
    wrapped = {f"module.{name}": tensor for name, tensor in method.generator.state_dict().items()}
    loaded = pyramid_pix2pix.from_released(wrapped, network="generator", config=config)
    assert loaded.keys() == method.generator.state_dict().keys()


def test_a_checkpoint_without_dropout_is_refused_by_name() -> None:
    config = pyramid_pix2pix.PRESETS["tiny"]
    other = pyramid_pix2pix.PyramidPix2pix(config.model_copy(update={"dropout": 0.0})).generator.state_dict()
    with pytest.raises(
        WeightsError,
        match=r"generator: missing: model\.10\.conv_block\.7\.bias, .*; unexpected: model\.10\.conv_block\.5\.weight",
    ):
        pyramid_pix2pix.from_released(other, network="generator", config=config)


def part(width: int) -> Part:
    encoder = cssp2p.ResUnetGenerator("resnet50", width=width).encoder
    return Part({name: torch.full_like(value, 0.5) for name, value in encoder.state_dict().items()}, {}, "")


def test_cssp2p_starts_from_given_encoder_weights(batch: Batch) -> None:
    config = cssp2p.Config(judge_width=4, judge_layers=2)
    method = cssp2p.build(config, {"encoder": part(64)})
    assert isinstance(method, cssp2p.Cssp2p)
    assert bool((method.generator.encoder.conv1.weight == 0.5).all())
    next(method.turns(batch, AT))


def test_cssp2p_refuses_pretrained_weights_of_another_encoder() -> None:
    with pytest.raises(
        ValidationError, match="pretrained weights are those of resnet50 at width 64, not resnet18 at 64"
    ):
        cssp2p.Config(backbone="resnet18")


def test_the_presets_of_cssp2p_are_the_ablations_of_the_paper(batch: Batch) -> None:
    terms = {}
    for preset in ("bce", "cbce", "p2p", "paper"):
        config = cssp2p.PRESETS["tiny"].model_copy(update={"objective": cssp2p.PRESETS[preset].objective})
        method = cssp2p.build(config, {})
        turns = {turn.player: turn for turn in method.turns(batch, AT)}
        terms[preset] = list(turns["generator"].logs)
        total = torch.stack(list(turns["generator"].logs.values())).sum()
        torch.testing.assert_close(turns["generator"].loss, total)
    assert terms == {
        "bce": ["adversarial"],
        "cbce": ["adversarial"],
        "p2p": ["adversarial", "pyramid"],
        "paper": ["adversarial", "pyramid", "css"],
    }


def test_only_bce_judges_the_ihc_alone(batch: Batch) -> None:
    for objective, inputs in (("bce", 3), ("cbce", 6)):
        method = cssp2p.Cssp2p(cssp2p.PRESETS["tiny"].model_copy(update={"objective": objective}))
        assert method.discriminator.model[0].weight.shape[1] == inputs


def test_the_released_preset_collects_the_quirks_of_the_code() -> None:
    changed = {
        name: value for name, value in cssp2p.PRESETS["released"] if value != getattr(cssp2p.PRESETS["paper"], name)
    }
    assert changed == {"pyramid_grad": "octave0", "css_target": "normalised", "blur_gain": 1 / 16}


def test_cssp2p_stains_alike_in_either_mode_and_in_the_signed_range(batch: Batch) -> None:
    method = cssp2p.Cssp2p(cssp2p.PRESETS["tiny"])
    seeds = torch.tensor([0, 1])
    trained = method.stain(batch.he, seeds=seeds)
    method.eval()
    torch.testing.assert_close(method.stain(batch.he, seeds=seeds), trained)
    assert -1 <= float(trained.min()) < 0 < float(trained.max()) <= 1


def test_imagenet_ranges_go_there_and_back(batch: Batch) -> None:
    unit = cssp2p.unit_from_signed(batch.he)
    torch.testing.assert_close(cssp2p.unit_from_imagenet(cssp2p.imagenet_from_unit(unit)), unit)
    grey = cssp2p.imagenet_from_unit(torch.tensor(cssp2p.IMAGENET_MEAN).view(1, 3, 1, 1).expand(1, 3, 2, 2))
    assert not grey.any()


def released_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our discriminator's tensors as the authors name them."""
    last = max(int(name.split(".")[1]) for name in state)
    renamed = {}
    for name, tensor in state.items():
        _, index, leaf = name.split(".")
        theirs = {"u": "weight_u", "v": "weight_v"}.get(leaf, leaf)
        if leaf == "weight" and f"model.{index}.u" in state:
            theirs = "weight_orig"
        renamed[f"final_conv.{theirs}" if int(index) == last else f"enc.{index}.{theirs}"] = tensor
    return renamed


def test_a_released_discriminator_of_cssp2p_goes_in_whole() -> None:
    config = cssp2p.PRESETS["tiny"]
    state = cssp2p.Cssp2p(config).discriminator.state_dict()
    loaded = cssp2p.from_released(released_names(state), network="discriminator", config=config)
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_foreign_checkpoint_of_cssp2p_is_refused_by_name() -> None:
    with pytest.raises(
        WeightsError, match=r"cssp2p generator: missing: .*decoder\.head\.bias.*; unexpected: decoder\.foo, x"
    ):
        cssp2p.from_released(
            {"x": torch.zeros(1), "decoder.foo": torch.zeros(1)}, network="generator", config=cssp2p.PRESETS["tiny"]
        )


@pytest.mark.parametrize("model", ["asp", "cut_pyramid"])
def test_a_crop_that_is_too_small_for_the_pyramid_loss_is_refused_before_anything_runs(model):
    def resolved(**options):
        training = TrainingSpec(crop_px=32)
        return resolve_run("r", RunSpec(model=model, preset="tiny", dataset="set", options=options, training=training))

    with pytest.raises(
        ConfigError, match=r"runs\.r\.training\.crop_px: 32 px, but the pyramid loss takes crops from 64"
    ):
        resolved()
    assert resolved(pyramid_weight=0.0).training.crop_px == 32


@pytest.mark.parametrize("module", [asp, cut])
def test_the_gain_of_the_init_reaches_every_weight(module) -> None:
    tiny = module.PRESETS["tiny"]
    published, larger = (module.build(tiny.model_copy(update={"init_gain": gain}), {}) for gain in (0.02, 0.3))
    for part in ("generator", "heads", "discriminator"):
        spreads = [
            [float(p.detach().std()) for p in getattr(method, part).parameters() if p.ndim > 1 and p.numel() > 99]
            for method in (published, larger)
        ]
        assert spreads[0]
        assert all(11 < after / before < 21 for before, after in zip(*spreads, strict=True))
