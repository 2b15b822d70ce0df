"""Parts that the pix2pix family shares."""

from __future__ import annotations

from cases import Case, golden, near
from torch import nn

from hepipe.losses.adversarial import ADVERSARIAL
from hepipe.models.schedules import linear_decay
from hepipe.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from hepipe.networks.released import spectral_name, without_filters

FORWARD = 1e-4
LOSS = 1e-4
SCHEDULE = 1e-9


def check_network(case: Case, network: nn.Module, *, atol: float = FORWARD) -> None:
    """Outputs in eval and train mode, and the statistics after the one training pass."""
    network.eval()
    near(network(case["x"]), case["y_eval"], atol=atol, what="y_eval")
    if "y_train" in case:
        network.train()
        near(network(case["x"]), case["y_train"], atol=atol, what="y_train")
        state = network.state_dict()
        for name, expected in case.group("after/").items():
            near(state[spectral_name(name)], expected, atol=atol, what=name)


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
