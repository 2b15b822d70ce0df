"""ASP."""

from __future__ import annotations

import numpy as np
import torch
from cases import Case, golden, leaf, near, near_gradient
from golden_cut import as_the_reference_ran, batch_of
from golden_pix2pix import GAN_NAMES, judge_of
from torch import Tensor, nn

from hepipe.dataset.batch import Batch
from hepipe.losses.patchnce import LOOKUPS, adaptive_weights, patch_nce, trust_in_all, unit_rows
from hepipe.losses.pyramid import BINOMIAL_WEIGHTS, binomial_l1, binomial_levels
from hepipe.models.method import Progress
from hepipe.models.zoo import asp

FORWARD = 1e-4
LOSS = 1e-4
SHARE = 1e-4
RESAMPLED = 1e-5
WEIGHTS = {"rtol": 1e-3, "atol": 1e-5}
AT_ZERO = 5e-3
"""The look-up `top` has an infinite slope at similarity 0."""
TRAINED_PASS = "y_train_after_one_power_iteration"


def options_of(case: Case, **further: object) -> asp.Config:
    config = case.config
    sizes = {"width": config.get("ngf", 4), "judge_width": config.get("ndf", 4), "blocks": config.get("n_blocks", 6)}
    return asp.Config.model_validate({**sizes, **further})


def check_spectral(case: Case, network: nn.Module) -> None:
    network.eval()
    near(network(case["x"]), case["y_eval"], atol=FORWARD, what="y_eval")
    network.train()
    near(network(case["x"]), case[TRAINED_PASS], atol=FORWARD, what=TRAINED_PASS)


@golden("asp", "resnet6_sn_generator")
def generator(case: Case) -> None:
    assert (case.config["norm"], case.config["antialias"], case.config["power_iterations"]) == ("instance", True, 1)
    options = options_of(case)
    network = asp.Asp(options).generator
    network.load_state_dict(asp.from_released(case.group("w/"), network="generator", config=options))
    network.eval()
    taps = sorted(case.config["feature_layers"])
    for tap, features in zip(taps, network.features(case["x"], taps), strict=True):
        near(features, case[f"feat_{tap}"], atol=FORWARD, what=f"feat_{tap}")
    check_spectral(case, network)


@golden("asp", "patch5_sn_discriminator")
def discriminator(case: Case) -> None:
    config, weights = case.config, case.group("w/")
    network: nn.Module
    if (config["norm"], config["antialias"], config["in_channels"]) == ("instance", True, 3):  # as in this model
        options = options_of(case, judge_layers=config["n_layers"])
        network = asp.Asp(options).discriminator
        network.load_state_dict(asp.from_released(weights, network="discriminator", config=options))
    else:
        network = judge_of(config, weights)
    check_spectral(case, network)


@golden("asp", "l2norm")
def l2norm(case: Case) -> None:
    near(unit_rows(case["x"], shift="inside"), case["y"], atol=FORWARD)


@golden("asp", "weight_schedule")
def weight_schedule(case: Case) -> None:
    constant, decay = case.config["n_epochs"], case.config["n_epochs_decay"]
    for name, expected in case.group("f64_p_").items():
        found = [trust_in_all(name, epoch=e + 1, constant=constant, decay=decay) for e in range(len(expected))]
        near(found, expected, atol=SHARE, what=name)


@golden("asp", "weight_lookup")
def weight_lookup(case: Case) -> None:
    similarity = case["similarity"]
    for name in LOOKUPS:
        expected, found = case[f"w_{name}"], adaptive_weights(similarity, lookup=name, trust=0.0)
        steep = (similarity.abs() < 1e-6) & (name == "top")
        near(found[~steep], expected[~steep], **WEIGHTS, what=name)
        near(found[steep], expected[steep], atol=AT_ZERO, what=f"{name} at 0")


@golden("asp", "asp_loss")
def asp_loss(case: Case) -> None:
    config = case.config
    shape = (config["batch"], config["patches"], config["dim"])
    spans = {"constant": config["n_epochs"], "decay": config["n_epochs_decay"]}
    epochs = [int(epoch) for epoch in case["epochs"]]

    def weighted(query: Tensor, mode: str, epoch: int) -> Tensor:
        loss = patch_nce(query, case["k"].view(shape), temperature=config["T"])
        if mode == "none":
            return loss
        schedule, lookup = mode.split("_")
        trust = trust_in_all(schedule, epoch=epoch, **spans)
        if trust == 1:
            return loss
        similarity = (query.detach() * case["k"].view(shape)).sum(2)
        return loss * adaptive_weights(similarity, lookup=lookup, trust=trust)

    query = case["q"].view(shape)
    for name, expected in case.group("loss_").items():
        if name == "none":
            near(
                patch_nce(query, case["k"].view(shape), temperature=config["T"]).flatten(),
                expected,
                rtol=LOSS,
                atol=1e-5,
            )
            continue
        for row, epoch in zip(expected, epochs, strict=True):
            near(weighted(query, name, epoch).flatten(), row, rtol=1e-3, atol=1e-4, what=f"{name} {epoch}")
    for name, expected in case.group("grad_q_").items():
        mode = name.removesuffix("_epoch").removesuffix("_last").removesuffix("_second")
        total = sum(spans.values())
        epoch = {"": 1, "_last_epoch": total, "_second_last_epoch": total - 1}[name.removeprefix(mode)]
        query = leaf(case["q"].view(shape))
        weighted(query, mode, epoch).mean().backward()
        near_gradient(query.grad.view(-1, shape[2]), expected, what=name)


@golden("asp", "gauss_pyramid")
def gauss_pyramid(case: Case) -> None:
    config = case.config
    weights, filtered = config["weights"], config["num_high"]
    if filtered == len(BINOMIAL_WEIGHTS) - 1:
        near(BINOMIAL_WEIGHTS, np.array(weights), rtol=1e-9)
    for name, one in (("fake", case["fake"]), ("real", case["real"])):
        levels = binomial_levels(one, filtered)
        assert len(levels) == filtered + 1
        if name == "fake":
            for i, level in enumerate(levels):
                near(level, case[f"level{i}"], atol=RESAMPLED, what=f"level{i}")
    fake = leaf(case["fake"])
    pairs = zip(binomial_levels(fake, filtered), binomial_levels(case["real"], filtered), strict=True)
    terms = torch.stack([(a - b).abs().mean() for a, b in pairs])
    near(terms, case["terms"], rtol=LOSS, what="terms")
    loss = config["lambda_gp"] * binomial_l1(fake, case["real"], weights=weights)
    near(loss, case["loss_gp"], rtol=LOSS)
    loss.backward()
    near_gradient(fake.grad, case["grad_fake"])


@golden("asp", "generator_objective")
def generator_objective(case: Case) -> None:
    config = case.config
    schedule, lookup = (None, "uniform") if config["asp_mode"] == "none" else config["asp_mode"].split("_")
    options = options_of(
        case,
        judge_layers=config["d_layers"],
        head_width=config["proj_dim"],
        places=config["num_patches"],
        temperature=config["T"],
        gan=GAN_NAMES.get(config["gan_mode"], config["gan_mode"]),
        gan_weight=config["lambda_GAN"],
        nce_weight=config["lambda_NCE"],
        asp_weight=config["lambda_ASP"],
        pyramid_weight=config["lambda_GP"],
        schedule=schedule,
        lookup=lookup,
        constant_epochs=config["n_epochs"],
        decay_epochs=config["n_epochs_decay"],
    )
    method = asp.Asp(options)
    for prefix, network in (("w/", "generator"), ("d/", "discriminator"), ("f/", "heads")):
        getattr(method, network).load_state_dict(asp.from_released(case.group(prefix), network=network, config=options))
    assert config["mode"].startswith("spectral norm vectors frozen (eval)")
    method.train(False)
    with as_the_reference_ran():
        check_objective(case, method, batch_of(case))


def check_objective(case: Case, method: asp.Asp, batch: Batch) -> None:
    config = case.config
    virtual = method.generator(case["A"])
    near(virtual, case["fake_B"], atol=FORWARD, what="fake_B")
    near(method.discriminator_turn(virtual, case["B"]).loss, case["loss_D"], rtol=LOSS, what="loss_D")
    epochs = config["n_epochs"] + config["n_epochs_decay"]
    places = [[case[f"{name}{i}"].long() for i in range(len(asp.TAPS))] for name in ("ids_nce", "ids_asp")]
    trust = method.trust(Progress(config["epoch"] - 1, epochs, 1))
    turn = method.generator_turn(batch, virtual, trust=trust, places=places)
    for log, name in (("adversarial", "G_GAN"), ("contrast", "NCE"), ("asp", "ASP"), ("pyramid", "GP")):
        # A term of weight 0 is not computed.
        if log in turn.logs or f"loss_{name}" in case:
            near(turn.logs.get(log, 0.0), case[f"loss_{name}"], rtol=LOSS, what=name)
    near(turn.loss, case["loss_G"], rtol=LOSS, what="loss_G")
    turn.loss.backward()
    near_gradient(method.generator.model[1].weight.grad, case["grad_first_conv"])
