"""Runs that are shorter, crops that are smaller and options that are other than a paper thought of."""

import pytest
import torch

from hepipe.dataset.batch import Batch
from hepipe.errors import ConfigError
from hepipe.losses.pyramid import binomial_l1
from hepipe.models.catalog import catalog
from hepipe.models.method import Progress
from hepipe.models.resolved import resolve_run
from hepipe.models.zoo import cut, pix2pix, pyramid_pix2pix
from hepipe.specs.training import RunSpec, TrainingSpec

PIX2PIX = [(pix2pix, pix2pix.Pix2pix), (pyramid_pix2pix, pyramid_pix2pix.PyramidPix2pix)]


def resolved(model, crop_px, **options):
    training = TrainingSpec(crop_px=crop_px)
    return resolve_run("r", RunSpec(model=model, preset="tiny", dataset="set", options=options, training=training))


@pytest.mark.parametrize(("module", "kind"), PIX2PIX)
def test_a_run_of_less_than_an_epoch_learns_at_the_full_rate(module, kind) -> None:
    method = kind(module.PRESETS["tiny"])
    assert [method.rate("generator", Progress(step, 3, 100)) for step in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(("module", "kind"), PIX2PIX)
def test_a_run_of_one_epoch_at_rate_zero_is_refused(module, kind) -> None:
    method = kind(module.PRESETS["tiny"].model_copy(update={"lr_step": "epoch_start"}))
    with pytest.raises(ConfigError, match=r"this run of 3 steps has but one epoch of 100, .*; train for more than 100"):
        method.rate("generator", Progress(0, 3, 100))
    assert method.rate("generator", Progress(0, 101, 100)) == 0.5


@pytest.mark.parametrize(("module", "kind"), PIX2PIX)
def test_released_pix2pix_cuts_its_output_down_to_whole_levels(module, kind) -> None:
    assert module.PRESETS["released"].truncate
    torch.manual_seed(0)
    plain, released = (kind(module.PRESETS["tiny"].model_copy(update={"truncate": on})) for on in (False, True))
    released.load_state_dict(plain.state_dict())
    he, seeds = torch.rand(2, 3, 32, 32) * 2 - 1, torch.tensor([1, 2])
    exact, whole = ((method.stain(he, seeds=seeds).double() + 1) * 127.5 for method in (plain, released))
    assert float((whole - whole.round()).abs().max()) < 1e-3
    fall = exact - whole
    assert float(fall.min()) > -1e-3
    assert 0.5 < float(fall.max()) < 1


def test_cut_refuses_a_loss_on_pairs_that_it_does_not_have() -> None:
    with pytest.raises(
        ConfigError, match=r"runs\.r\.options\.pyramid_weight: 10 .* unpaired tiles; take model cut_pyr"
    ):
        resolved("cut", 64, pyramid_weight=10.0)
    assert resolved("cut_pyramid", 64).pairing == "paired"


def test_the_pyramid_loss_of_a_mirrored_batch_compares_it_upright() -> None:
    method = cut.Cut(cut.PRESETS["tiny"].model_copy(update={"pyramid_weight": 1.0, "identity_nce": False}))
    he, ihc = torch.rand((2, 1, 3, 64, 64), generator=torch.Generator().manual_seed(1)) * 2 - 1
    batch = Batch(("a/0-0",), he, ihc, ("her2",))
    mirrored = method.generator_turn(batch, ihc.flip(3), None, flipped=True)
    assert mirrored.logs["pyramid"] == 0
    straight = method.generator_turn(batch, ihc.flip(3), None, flipped=False)
    torch.testing.assert_close(straight.logs["pyramid"], binomial_l1(ihc.flip(3), ihc))


@pytest.mark.parametrize(
    ("model", "crop_px", "options", "message"),
    [
        ("pix2pix", 32, {"downs": 6}, "32 px, but with options.downs: 6 the networks take multiples of 64 px"),
        ("bbdm", 66, {"multipliers": [1, 2, 2]}, "66 px, but with 3 multipliers and options.patch_px: 1 .* of 4 px"),
        ("pix2pix", 100, {}, "100 px, but pix2pix tiny takes multiples of 32 px, such as 96 or 128"),
        ("pix2pix", 20, {}, "20 px, but pix2pix tiny takes multiples of 32 px, such as 32"),
    ],
)
def test_a_crop_that_the_networks_cannot_halve_is_refused_with_its_divisor(model, crop_px, options, message) -> None:
    with pytest.raises(ConfigError, match=r"runs\.r\.training\.crop_px: " + message):
        resolved(model, crop_px, **options)


def test_every_preset_takes_the_smallest_crop_that_its_file_states_as_far_as_its_options_go() -> None:
    for name in ("pix2pix", "bbdm"):
        entry = catalog()[name]
        for preset in entry.presets:
            side = 1 if entry.takes(1, preset) else entry.largest(4096, preset)
            training = TrainingSpec(crop_px=side)
            run = RunSpec(model=name, preset=preset, dataset="set", training=training)
            assert resolve_run("r", run).training.crop_px == side
