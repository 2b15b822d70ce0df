"""CUT and FastCUT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import torch
from cases import Case, golden, leaf, near, near_gradient
from golden_pix2pix import GAN_NAMES, generator_of, judge_of

from hepipe.dataset.batch import Batch
from hepipe.losses.patchnce import patch_nce, unit_rows
from hepipe.models.zoo import cut
from hepipe.networks import heads as heads_module
from hepipe.networks.blocks import BlurDown, BlurUp, InstanceNorm
from hepipe.networks.heads import PatchHeads, at_places, head_name
from hepipe.networks.released import without_filters

FORWARD = 1e-4
LOSS = 1e-4
RESAMPLED = 1e-5


@contextmanager
def as_the_reference_ran() -> Iterator[None]:
    """The reference gathers patches in a layout for which torch's instance norm returns a wrong gradient on a CPU.

    Its stored gradient holds that error (ours agrees with finite differences); here the same happens.
    """

    def gathered(features: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return features.permute(0, 2, 3, 1).flatten(1, 2)[:, places]

    with (
        patch.object(heads_module, "at_places", gathered),
        patch.object(InstanceNorm, "forward", torch.nn.InstanceNorm2d.forward),
    ):
        yield


def places_of(case: Case, prefix: str) -> list[torch.Tensor]:
    return [case[f"{prefix}{i}"].long() for i in range(len([n for n in case.arrays if n.startswith(prefix)]))]


@golden("cut", "antialias_resample")
def antialias_resample(case: Case) -> None:
    down, up = BlurDown(), BlurUp()
    near(down.kernel, case["down_kernel"], atol=RESAMPLED)
    near(up.kernel, case["up_kernel"], atol=RESAMPLED)
    near(down(case["x"]), case["down"], atol=RESAMPLED)
    near(up(case["x"]), case["up"], atol=RESAMPLED)


@golden("cut", "resnet_generator")
def resnet_generator(case: Case) -> None:
    network = generator_of(case.config, case.group("w/")).eval()
    near(network(case["x"]), case["y"], atol=FORWARD, what="y")
    taps = sorted(tap for tap in case.config["feature_layers"] if f"feat_{tap}" in case)
    for tap, features in zip(taps, network.features(case["x"], taps) if taps else (), strict=True):
        near(features, case[f"feat_{tap}"], atol=FORWARD, what=f"feat_{tap}")


@golden("cut", "patch_discriminator")
def patch_discriminator(case: Case) -> None:
    near(judge_of(case.config, case.group("w/"))(case["x"]), case["y"], atol=FORWARD)


@golden("cut", "projection")
def projection(case: Case) -> None:
    maps = [case[f"feat{i}"] for i in range(len(case.group("feat")))]
    places = places_of(case, "ids")
    heads = PatchHeads([features.shape[1] for features in maps], width=case.config["proj_dim"])
    heads.load_state_dict({head_name(name): value for name, value in case.group("w/").items()})
    for i, rows in enumerate(heads(maps, places)):
        near(unit_rows(rows).flatten(0, 1), case[f"out{i}"], atol=FORWARD, what=f"out{i}")
        plain = unit_rows(at_places(maps[i], places[i])).flatten(0, 1)
        near(plain, case[f"out_nomlp{i}"], atol=FORWARD, what=f"out_nomlp{i}")


@golden("cut", "patchnce")
def patchnce(case: Case) -> None:
    config = case.config
    shape = (config["batch"], config["patches_per_image"], config["dim"])
    assert config["diagonal_fill"] == -10
    names = [name.removeprefix("loss_") for name in case.arrays if name.startswith("loss_")]
    assert names
    for name in names:
        kind, temperature = name.split("_T")
        query = leaf(case["q"].view(shape))
        loss = patch_nce(query, case["k"].view(shape), temperature=float(temperature), across_batch=kind == "all")
        near(loss.flatten(), case[f"loss_{name}"], rtol=LOSS, atol=1e-5, what=name)
        loss.mean().backward()
        near_gradient(query.grad.view(-1, shape[2]), case[f"grad_q_{name}"], what=name)


@golden("cut", "generator_objective")
def generator_objective(case: Case) -> None:
    config = case.config
    judge = without_filters(case.group("d/"))
    options = cut.Config(
        width=config["ngf"],
        blocks=config["n_blocks"],
        judge_width=config["ndf"],
        judge_layers=sum(tensor.ndim == 4 for tensor in judge.values()) - 2,
        head_width=config["proj_dim"],
        places=config["num_patches"],
        temperature=config["T"],
        gan=GAN_NAMES.get(config["gan_mode"], config["gan_mode"]),
        nce_weight=config["lambda_NCE"],
        identity_nce=config["nce_idt"],
    )
    method = cut.Cut(options)
    for prefix, network in (("w/", "generator"), ("d/", "discriminator"), ("f/", "heads")):
        weights = cut.from_released(case.group(prefix), network=network, config=options)
        getattr(method, network).load_state_dict(weights)
    with as_the_reference_ran():
        check_objective(case, method, batch_of(case))


def batch_of(case: Case) -> Batch:
    return Batch(("a",) * len(case["A"]), case["A"], case["B"], ("her2",) * len(case["A"]))


def check_objective(case: Case, method: cut.Cut, batch: Batch) -> None:
    config = case.config
    virtual = method.generator(case["A"])
    near(virtual, case["fake_B"], atol=FORWARD, what="fake_B")
    identity = None
    if config["nce_idt"]:
        identity = method.generator(case["B"])
        near(identity, case["idt_B"], atol=FORWARD, what="idt_B")
    near(method.discriminator_turn(virtual, case["B"]).loss, case["loss_D"], rtol=LOSS, what="loss_D")
    ids = [
        [case[f"{name}{i}"].long() for i in range(len(cut.TAPS))]
        for name in ("ids", "ids_idt")[: 1 + config["nce_idt"]]
    ]
    turn = method.generator_turn(batch, virtual, identity, places=[*ids, None][:2])
    near(turn.logs["adversarial"], case["loss_G_GAN"], rtol=LOSS, what="loss_G_GAN")
    near(turn.logs["contrast"], case["loss_NCE"], rtol=LOSS, what="loss_NCE")
    if config["nce_idt"]:
        near(turn.logs["identity"], case["loss_NCE_Y"], rtol=LOSS, what="loss_NCE_Y")
    near(turn.loss, case["loss_G"], rtol=LOSS, what="loss_G")
    turn.loss.backward()
    near_gradient(method.generator.model[1].weight.grad, case["grad_first_conv"])
