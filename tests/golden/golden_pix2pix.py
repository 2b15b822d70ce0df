"""Pix2pix, and the parts that its family shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from cases import Case, golden, near
from torch import nn

from hepipe.dataset.batch import Batch
from hepipe.losses.adversarial import ADVERSARIAL
from hepipe.models.method import Progress
from hepipe.models.schedules import linear_decay
from hepipe.models.zoo import pix2pix
from hepipe.models.zoo.pyramid_pix2pix import PyramidPix2pix
from hepipe.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from hepipe.networks.released import spectral_name, without_filters
from hepipe.networks.unet import unet_name

FORWARD = 1e-4
LOSS = 1e-4
STEPS = 1e-3
SCHEDULE = 1e-9


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


@golden("pix2pix", "patch_discriminator")
def patch_discriminator(case: Case) -> None:
    network = PatchDiscriminator(
        inputs=case.config["in_channels"],
        width=case.config["ndf"],
        n_layers=case.config["n_layers"],
        norm=case.config["norm"],
        antialias=case.config.get("antialias", False),
        spectral=case.config.get("spectral_norm", False),
    )
    network.load_state_dict({spectral_name(name): value for name, value in without_filters(case.group("w/")).items()})
    check_network(case, network)


@golden("pix2pix", "pixel_discriminator")
def pixel_discriminator(case: Case) -> None:
    config = case.config
    network = PixelDiscriminator(inputs=config["in_channels"], width=config["ndf"], norm=config["norm"])
    network.load_state_dict(case.group("w/"))
    check_network(case, network)


@golden("pix2pix", "gan_losses")
def gan_losses(case: Case) -> None:
    assert (case.config["reduction"], case.config["target_fake"], case.config["target_real"]) == ("mean", 0.0, 1.0)
    fake, real = case["pred_fake"], case["pred_real"]
    for mode, sides in ADVERSARIAL.items():
        near(sides.fake(fake), case[f"{mode}_fake_as_fake"], rtol=LOSS, what=mode)
        near(sides.real(real), case[f"{mode}_real_as_real"], rtol=LOSS, what=mode)
        near(sides.real(fake), case[f"{mode}_fake_as_real"], rtol=LOSS, what=mode)
        near((sides.fake(fake) + sides.real(real)) / 2, case[f"{mode}_loss_D"], rtol=LOSS, what=mode)


@golden("pix2pix", "lr_linear")
def lr_linear(case: Case) -> None:
    config = case.config
    n = len(case["f64_lr_step_at_epoch_end"])
    for stepped, name in enumerate(("f64_lr_step_at_epoch_end", "f64_lr_step_at_epoch_start")):
        rates = [
            config["base_lr"]
            * linear_decay(epoch + stepped, constant=config["n_epochs"], decay=config["n_epochs_decay"])
            for epoch in range(n)
        ]
        near(rates, case[name], rtol=SCHEDULE, what=name)


@golden("pix2pix", "unet_generator")
def unet_generator(case: Case) -> None:
    config = case.config
    options = pix2pix.Config(
        width=config["ngf"], downs=config["num_downs"], dropout=float(config["dropout"]), norm=config["norm"]
    )
    network = pix2pix.Pix2pix(options).generator
    network.load_state_dict(pix2pix.from_released(case.group("w/"), network="generator", config=options))
    check_network(case, network, named=lambda name: unet_name(name, n_downs=options.downs))


@golden("pix2pix", "train_steps")
def train_steps(case: Case) -> None:
    config = case.config
    assert config["arch"] == "unet"
    judge = case.group("d/")
    options = pix2pix.Config(
        width=config["ngf"],
        downs=config["num_downs"],
        dropout=float(config["dropout"]),
        norm=config["norm"],
        judge_width=config["ndf"],
        judge_layers=sum(tensor.ndim == 4 for tensor in judge.values()) - 2,
        gan=config["gan_mode"],
        l1_weight=config["lambda_L1"],
        lr=config["lr"],
        betas=config["betas"],
    )
    method = pix2pix.Pix2pix(options)
    method.generator.load_state_dict(pix2pix.from_released(case.group("w/"), network="generator", config=options))
    method.discriminator.load_state_dict(pix2pix.from_released(judge, network="discriminator", config=options))
    check_steps(case, method, {"G_GAN": "adversarial", "D_fake": "fake", "D_real": "real", "G_L1": "l1"})


def check_steps(case: Case, method: pix2pix.Pix2pix | PyramidPix2pix, logs_of: Mapping[str, str]) -> None:
    """Losses and pictures over some optimisation steps, generator output before, after, and after in eval mode."""
    config = case.config
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
