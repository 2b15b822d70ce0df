"""CSSP2P and its ablations."""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from cases import Case, golden, leaf, near, near_gradient
from torch import Tensor

from hepipe.losses.css import css, css_loss, shared_range
from hepipe.losses.pyramid import blur, gaussian_kernel, pool_scale, pooled_l1, weighted_mean
from hepipe.models.method import Progress
from hepipe.models.zoo.cssp2p import (
    PRESETS,
    Config,
    Cssp2p,
    decoder_name,
    from_released,
    imagenet_from_unit,
    unit_from_imagenet,
)
from hepipe.networks.released import judge_name
from hepipe.networks.resunet import UnetDecoder

FORWARD = 1e-4
GENERATOR = 3e-4
INNER_MAPS = 1e-3  # the reference bottleneck of ResNet-50 is itself 8.8e-4 from float64, its output 2e-5
LOSS = 1e-4
CSS = 1e-4
RESAMPLED = 1e-5
SCHEDULE = 1e-9
GAINS = {"": 1 / 16, "_unit_gain": 1.0}


def small(**options: object) -> Config:
    return Config.model_validate({**PRESETS["tiny"].model_dump(), **options})


def numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", text)]


@golden("cssp2p", "css_loss")
def css_losses(case: Case) -> None:
    config = case.config
    side, _, sigma = numbers(config["window"])
    near(imagenet_from_unit(case["he"]), case["he_imagenet"], atol=RESAMPLED, what="he_imagenet")
    near(unit_from_imagenet(case["he_imagenet"]), case["he"], atol=RESAMPLED, what="he")
    tags = [name.removeprefix("loss_") for name in case.arrays if name.startswith("loss_")]
    assert tags
    for tag in tags:
        fake = leaf(case["fake"])
        he = case["he_imagenet"] if tag == "official" else case["he"]
        limits = 1.0 if tag.endswith("unit_range") else shared_range(fake, he)
        box = re.match(r"box(\d+)_", tag)
        window = {"window": "box", "side": int(box[1])} if box else {"side": int(side), "sigma": sigma}
        similarity = css(fake, he, value_range=limits, k=float(config["k"]), **window)
        loss = css_loss(similarity, eps=float(config["log_eps"]))
        near(loss, case[f"loss_{tag}"], rtol=LOSS, atol=CSS, what=tag)
        if f"css_per_image_{tag}" in case:
            near(similarity, case[f"css_per_image_{tag}"], atol=CSS, what=tag)
        if f"grad_{tag}" in case:
            loss.backward()
            near_gradient(fake.grad, case[f"grad_{tag}"], what=tag)
    if "auto_range_official" in case:
        near(shared_range(case["fake"], case["he_imagenet"]), case["auto_range_official"], rtol=LOSS)


@golden("cssp2p", "smoothing")
def smoothing(case: Case) -> None:
    side, _, sigma = numbers(case.config["kernel"])
    kernel = gaussian_kernel(int(side), sigma)
    near(kernel, case["kernel"], atol=RESAMPLED, what="kernel")
    counts = sorted(int(name[4:]) for name in case.arrays if name.startswith("blur"))
    blurred = case["x"]
    for i in range(1, counts[-1] + 1):
        blurred = blur(blurred, kernel, border="zero")
        if i in counts:
            near(blurred, case[f"blur{i}"], atol=RESAMPLED, what=f"blur{i}")
    near(
        pool_scale(case["x"], blurs=counts[-1], side=int(side), sigma=sigma), case["down"], atol=RESAMPLED, what="down"
    )


@golden("cssp2p", "pyramid_loss")
def pyramid_loss(case: Case) -> None:
    scales, weights = case.config["scales"], [float(weight) for weight in case.config["weights"]]
    for form, grad in (("official", "octave0"), ("all_octaves", "all")):
        fake = leaf(case["fake"])
        terms = pooled_l1(fake, case["real"], n=max(scales) + 1, grad=grad)[scales]
        near(terms, case["terms"], rtol=LOSS, what="terms")
        near((terms * torch.tensor(weights)).sum(), case["loss_sum"], rtol=LOSS, what="loss_sum")
        loss = weighted_mean(terms, weights)
        near(loss, case["loss"], rtol=LOSS, what="loss")
        loss.backward()
        near_gradient(fake.grad, case[f"grad_{form}"], what=form)


@golden("cssp2p", "patch4_sn_bn_discriminator")
def discriminator(case: Case) -> None:
    config = case.config
    assert (config["norm"], config["antialias"], config["spectral_norm"]) == ("batch", True, True)
    for suffix, gain in GAINS.items():
        options = small(
            objective="bce" if config["in_channels"] == 3 else "cbce",
            judge_width=config["ndf"],
            judge_layers=config["n_layers"],
            blur_gain=gain,
        )
        network = Cssp2p(options).discriminator
        network.load_state_dict(from_released(case.group("w/"), network="discriminator", config=options))
        network.eval()
        near(network(case["x"]), case[f"y_eval{suffix}"], atol=FORWARD, what=f"y_eval{suffix}")
        network.train()
        near(network(case["x"]), case[f"y_train{suffix}"], atol=FORWARD, what=f"y_train{suffix}")
        if suffix == "":
            check_after(case, network.state_dict())


def check_after(case: Case, state: dict[str, Tensor]) -> None:
    """Statistics and power iteration after one training pass, the latter up to its sign."""
    last = max(int(name.split(".")[1]) for name in state)
    for name, expected in case.group("after/").items():
        actual = state[judge_name(name, last=last)]
        if "weight_" in name:
            actual = actual * torch.sign((actual * expected).sum())
        near(actual, expected, atol=FORWARD, what=name)


@golden("cssp2p", "decoder")
def decoder(case: Case) -> None:
    assert case.config["norm"] == "instance"
    skips = [case[f"skip{i}"] for i in range(len(case.group("skip")))]
    widths = [skip.shape[1] for skip in skips] + [case["bottleneck"].shape[1]]
    assert widths[::-1] == case.config["hidden_sizes"]
    network = UnetDecoder(widths, outputs=case["y_before_sigmoid"].shape[1])
    network.load_state_dict({decoder_name(name): value for name, value in case.group("w/").items()})
    near(network([*skips, case["bottleneck"]]), case["y_before_sigmoid"], atol=FORWARD)


@golden("cssp2p", "resunet")
def resunet(case: Case) -> None:
    config = case.config
    options = small(backbone=config["backbone"], width=64)
    stream = np.random.default_rng(config["weights_seed"])
    weights = {}
    for name, shape in zip(config["keys"], config["shapes"], strict=True):
        drawn = stream.standard_normal(shape, dtype=np.float32)
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) >= 2 else 0.1
        weights[name] = torch.from_numpy(drawn * np.float32(scale))
    unused = sum(tensor.numel() for name, tensor in weights.items() if ".fc." in name)
    network = Cssp2p(options).generator
    assert sum(p.numel() for p in network.parameters()) + unused == config["param_count"]
    network.load_state_dict(from_released(weights, network="generator", config=options))
    with torch.no_grad():
        *skips, bottleneck = network.encoder(case["x"])
        near(network(case["x"]), case["y"], atol=GENERATOR, what="y")
    near(bottleneck, case["bottleneck"], atol=INNER_MAPS, what="bottleneck")
    near(bottleneck.abs().mean(), case["bottleneck_mean_abs"], atol=INNER_MAPS, what="bottleneck_mean_abs")
    for i, skip in enumerate(skips):
        near(skip[:, 0], case[f"skip{i}_channel0"], atol=INNER_MAPS, what=f"skip{i}")


@golden("cssp2p", "objectives")
def objectives(case: Case) -> None:
    config = case.config
    assert config["weights"] == "all 1"
    he, ihc, fake = case["he_imagenet"], case["ihc"], case["fake"]
    for objective, form in (("bce", "uncond"), ("cbce", "cond"), ("p2p", "cond"), ("cssp2p", "cond")):
        for suffix, gain in GAINS.items():
            options = small(
                objective=objective,
                judge_width=config["ndf"],
                judge_layers=config["n_layers"],
                blur_gain=gain,
                css_target="normalised",
            )
            method = Cssp2p(options)
            weights = from_released(case.group(f"d_{form}/"), network="discriminator", config=options)
            method.discriminator.load_state_dict(weights)
            method.eval()
            caught, turn = method.discriminator_turn(fake, ihc, he), method.generator_turn(fake, ihc, he)
            near(caught.loss, case[f"loss_D_{form}{suffix}"], rtol=LOSS, what=f"D {objective}{suffix}")
            near(turn.logs["adversarial"], case[f"loss_G_adv_{form}{suffix}"], rtol=LOSS, what=f"G {objective}{suffix}")
            for term in ("pyramid", "css"):
                if term in turn.logs:
                    near(turn.logs[term], case[f"loss_{term}"], rtol=LOSS, what=term)
            if suffix == "":
                near(turn.loss, case[f"loss_G_{objective}"], rtol=LOSS, what=objective)


@golden("cssp2p", "lr_exponential")
def lr_exponential(case: Case) -> None:
    config, expected = case.config, case["f64_lr"]
    method = Cssp2p(small(lr=config["base_lr"], lr_gamma=config["gamma"]))
    for player in method.players():
        base = method.optimizer(player).param_groups[0]["lr"]
        rates = [base * method.rate(player, Progress(3 * e + 2, 3 * len(expected), 3)) for e in range(len(expected))]
        near(rates, expected, rtol=SCHEDULE, what=player)
