"""Pix2pix, and the parts that its family shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from cases import Case, golden, near
from torch import Tensor, nn

from hepipe.dataset.batch import Batch
from hepipe.losses.adversarial import ADVERSARIAL
from hepipe.models.method import Progress
from hepipe.models.schedules import linear_decay
from hepipe.models.zoo import pix2pix, pyramid_pix2pix
from hepipe.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from hepipe.networks.released import spectral_name, without_filters
from hepipe.networks.resnet import ResnetGenerator
from hepipe.networks.unet import UnetGenerator, unet_name

FORWARD = 1e-4
LOSS = 1e-4
STEPS = 1e-3
SCHEDULE = 1e-9
GAN_NAMES = {"nonsaturating": "vanilla"}
"""The reference's second name of a loss."""


def load(network: nn.Module, weights: Mapping[str, Tensor], norm: str) -> nn.Module:
    """Without norm the reference's convolutions lack the bias that ours have: it is 0."""
    missing = network.state_dict().keys() - weights.keys() if norm == "none" else ()
    zeros = {name: torch.zeros_like(network.state_dict()[name]) for name in missing if name.endswith(".bias")}
    network.load_state_dict({**weights, **zeros})
    return network


def generator_of(config: dict[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """A case's generator, by the loader of the authors' checkpoints where the model has this form."""
    norm, dropout = config["norm"], float(config["dropout"])
    shared = {"width": config["ngf"], "norm": norm, "dropout": dropout}
    network: nn.Module
    if config["arch"] == "unet":
        network = UnetGenerator(n_downs=config["num_downs"], **shared)
        named = {unet_name(name, n_downs=config["num_downs"]): tensor for name, tensor in weights.items()}
        if norm != "none":
            options = pix2pix.Config(downs=config["num_downs"], **shared)
            named = pix2pix.from_released(weights, network="generator", config=options)
    else:
        down = config.get("antialias", config.get("antialias_down", False))
        up = config.get("antialias_up", down)
        network = ResnetGenerator(n_blocks=config["n_blocks"], antialias=down, antialias_up=up, **shared)
        named = without_filters(weights)
        if norm != "none" and not down and not up:
            form = pyramid_pix2pix.Config(blocks=config["n_blocks"], **shared)
            named = pyramid_pix2pix.from_released(weights, network="generator", config=form)
    return load(network, named, norm)


def judge_of(config: dict[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """A case's discriminator; how many layers it has stands in its weights, where not in the config."""
    weights = {spectral_name(name): tensor for name, tensor in without_filters(weights).items()}
    convolutions = [tensor for name, tensor in weights.items() if name.endswith("weight") and tensor.ndim == 4]
    shared = {"inputs": convolutions[0].shape[1], "width": config["ndf"], "norm": config["norm"]}
    if any(name.startswith("net.") for name in weights):
        return load(PixelDiscriminator(**shared), weights, config["norm"])
    network = PatchDiscriminator(
        n_layers=config.get("n_layers", len(convolutions) - 2),
        antialias=config.get("antialias", False),
        spectral=config.get("spectral_norm", False),
        **shared,
    )
    return load(network, weights, config["norm"])


def check_network(
    case: Case, network: nn.Module, *, atol: float = FORWARD, named: Callable[[str], str] = spectral_name
) -> None:
    """Outputs in eval and train mode, and the statistics after the one training pass."""
    network.eval()
    near(network(case["x"]), case["y_eval"], atol=atol, what="y_eval")
    if "y_train" in case:
        network.train()
        near(network(case["x"]), case["y_train"], atol=atol, what="y_train")
        state = network.state_dict()
        for name, expected in case.group("after/").items():
            near(state[named(name)], expected, atol=atol, what=name)


@golden("pix2pix", "patch_discriminator", "pixel_discriminator")
def discriminator(case: Case) -> None:
    network = judge_of(case.config, case.group("w/"))
    assert case["x"].shape[1] == case.config["in_channels"]
    check_network(case, network)


@golden("pix2pix", "gan_losses")
def gan_losses(case: Case) -> None:
    assert (case.config["reduction"], case.config["target_fake"], case.config["target_real"]) == ("mean", 0.0, 1.0)
    fake, real = case["pred_fake"], case["pred_real"]
    modes = [name.removesuffix("_loss_D") for name in case.arrays if name.endswith("_loss_D")]
    assert modes
    for mode in modes:
        sides = ADVERSARIAL[GAN_NAMES.get(mode, mode)]
        near(sides.fake(fake), case[f"{mode}_fake_as_fake"], rtol=LOSS, what=mode)
        near(sides.real(real), case[f"{mode}_real_as_real"], rtol=LOSS, what=mode)
        near(sides.real(fake), case[f"{mode}_fake_as_real"], rtol=LOSS, what=mode)
        near((sides.fake(fake) + sides.real(real)) / 2, case[f"{mode}_loss_D"], rtol=LOSS, what=mode)


@golden("pix2pix", "lr_linear")
def lr_linear(case: Case) -> None:
    config = case.config
    n, first = len(case["f64_lr_step_at_epoch_end"]), config.get("epoch_count", 1) - 1
    for stepped, name in enumerate(("f64_lr_step_at_epoch_end", "f64_lr_step_at_epoch_start")):
        rates = [
            config["base_lr"]
            * linear_decay(first + epoch + stepped, constant=config["n_epochs"], decay=config["n_epochs_decay"])
            for epoch in range(n)
        ]
        near(rates, case[name], rtol=SCHEDULE, what=name)


@golden("pix2pix", "unet_generator")
def unet_generator(case: Case) -> None:
    network = generator_of(case.config, case.group("w/"))
    check_network(case, network, named=lambda name: unet_name(name, n_downs=case.config["num_downs"]))


@golden("pix2pix", "train_steps")
def train_steps(case: Case) -> None:
    options = pix2pix.Config(l1_weight=case.config["lambda_L1"], **steps_options(case.config))
    method = pix2pix.Pix2pix(options)
    check_steps(case, method, {"G_GAN": "adversarial", "D_fake": "fake", "D_real": "real", "G_L1": "l1"})


def steps_options(config: dict[str, Any]) -> dict[str, Any]:
    gan = GAN_NAMES.get(config["gan_mode"], config["gan_mode"])
    return {"gan": gan, "lr": config["lr"], "betas": config["betas"]}


def check_steps(
    case: Case, method: pix2pix.Pix2pix | pyramid_pix2pix.PyramidPix2pix, logs_of: Mapping[str, str]
) -> None:
    """Losses and pictures over some optimisation steps, generator output before, after, and after in eval mode."""
    config = case.config
    method.generator = generator_of(config, case.group("w/"))
    method.discriminator = judge_of(config, case.group("d/"))
    players = {name: list(player.parameters()) for name, player in method.players().items()}
    optimizers = {name: method.optimizer(name) for name in players}
    for optimizer in optimizers.values():
        optimizer.param_groups[0]["eps"] = config["adam_eps"]

    batch = Batch(("a",) * len(case["A"]), case["A"], case["B"], ("her2",) * len(case["A"]))
    method.train(config["mode"].startswith("train"))
    outputs = []
    method.generator.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    losses = []
    for step in range(config["steps"]):
        logs: dict[str, torch.Tensor] = {}
        for turn in method.turns(batch, Progress(step, 1000, 1)):
            turn.loss.backward(inputs=players[turn.player])
            optimizers[turn.player].step()
            optimizers[turn.player].zero_grad(set_to_none=True)
            logs |= turn.logs
        losses.append([float(logs[logs_of[name]].detach()) for name in config["loss_names"]])
    near(outputs[0], case["fake_B_before_first_update"], atol=STEPS, what="first output")
    near(losses, case["losses"], rtol=STEPS, what="losses")

    seeds = torch.zeros(len(batch), dtype=torch.long)
    # In this order: the pass in train mode moves the running statistics that the other reads.
    near(method.generator(case["A"]), case["fake_B_after"], atol=STEPS, what="output after the steps")
    near(method.stain(case["A"], seeds=seeds), case["fake_B_after_eval"], atol=STEPS, what="eval after the steps")
