"""Pyramid pix2pix."""

from __future__ import annotations

import torch
from cases import Case, golden, leaf, near, near_gradient
from golden_pix2pix import check_network, check_steps, generator_of, steps_options

from hepipe.losses.pyramid import blur, gaussian_kernel, octave_l1, octaves
from hepipe.models.zoo.pyramid_pix2pix import Config, PyramidPix2pix

LOSS = 1e-4
RESAMPLED = 1e-5

LOGS = {"G_GAN": "adversarial", "D_fake": "fake", "D_real": "real"}


@golden("pyramid_pix2pix", "resnet_generator")
def resnet_generator(case: Case) -> None:
    check_network(case, generator_of(case.config, case.group("w/")))


@golden("pyramid_pix2pix", "gaussian_octave")
def gaussian_octave(case: Case) -> None:
    config = case.config
    assert config["border"] == "reflect"
    side, sigma, blurs = config["kernel_size"], float(config["sigma"]), config["blurs_per_octave"]
    kernel = gaussian_kernel(side, sigma)
    near(kernel, case["kernel"], atol=RESAMPLED, what="kernel")
    blurred = case["x"]
    for i in range(blurs):
        blurred = blur(blurred, kernel, border="reflect")
        if f"blur{i + 1}" in case:
            near(blurred, case[f"blur{i + 1}"], atol=RESAMPLED, what=f"blur{i + 1}")
    names = sorted((name for name in case.arrays if name.startswith("octave")), key=lambda name: int(name[6:]))
    levels = octaves(case["x"], int(names[-1][6:]), blurs=blurs, side=side, sigma=sigma)
    for name in names:
        near(levels[int(name[6:]) - 1], case[name], atol=RESAMPLED, what=name)


@golden("pyramid_pix2pix", "pyramid_loss")
def pyramid_loss(case: Case) -> None:
    weights = torch.tensor(case.config["weights"], dtype=torch.float32)
    fake = leaf(case["fake"])
    terms = octave_l1(fake, case["real"], len(weights))
    near(terms, case["terms_unweighted"], rtol=LOSS, what="terms")
    total = (weights * terms).sum()
    near(total, case["total"], rtol=LOSS, what="total")
    total.backward()
    near_gradient(fake.grad, case["grad_fake"])


@golden("pyramid_pix2pix", "train_steps")
def train_steps(case: Case) -> None:
    config = case.config
    weights = (config["lambda_L1"], *config.get("pyramid_weights", ()))
    method = PyramidPix2pix(Config(octave_weights=weights, **steps_options(config)))
    logs_of = {name: LOGS.get(name, name.replace("G_L", "octave")) for name in config["loss_names"]}
    check_steps(case, method, logs_of)
