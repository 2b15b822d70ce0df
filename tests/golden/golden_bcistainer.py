"""BCIstainer."""

from __future__ import annotations

import re
from typing import Any

import torch
from cases import Case, golden, leaf, near, near_gradient
from torch import Tensor

from hepipe.losses.adversarial import smoothed_lsgan
from hepipe.losses.levels import focal
from hepipe.losses.pixel import PIXEL, shrunk
from hepipe.losses.similarity import ssim
from hepipe.models.method import Average, Progress
from hepipe.models.schedules import warmup_cosine
from hepipe.models.staining import VERSIONS, mean_of_versions, whole_levels_down
from hepipe.models.zoo.bcistainer import Config, average_decay, our_name, unlikeness
from hepipe.networks.crop_merge import CropMask, half_overlapping, mean_of_crops, mean_of_wholes, merge_crops
from hepipe.networks.multiscale import Comparator, MultiScaleDiscriminator
from hepipe.networks.styled import (
    AdaBlock,
    AdaIN,
    EqualizedLinear,
    ModBlock,
    ModulatedConv,
    PlainBlock,
    SimAM,
    StyledGenerator,
)
from hepipe.training.average import move

FORWARD = 1e-4
LOSS = 1e-4


def ours(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {our_name(name): tensor for name, tensor in weights.items()}


def generator_of(config: dict[str, Any], weights: dict[str, Tensor]) -> StyledGenerator:
    network = StyledGenerator(
        full_size=config["full_size"],
        width=config["init_channels"],
        encoder_blocks=config["encoder1_blocks"],
        style_blocks=config["style_blocks"],
        style=config["style_type"] or "none",
        style_linear=config.get("style_linear", True),
        attention=config["attention"],
        norm=config["norm_type"],
        dropout=float(config["dropout"]),
        lowres=config["output_lowres"],
        levels=config.get("levels", 4),
        inputs=config.get("input_channels", 3),
        outputs=config.get("output_channels", 3),
    )
    network.load_state_dict(ours(weights))
    return network.train(config.get("mode", "eval") == "train")


@golden("bcistainer", "blocks")
def blocks(case: Case) -> None:
    channels, width, bias = case.config["channels"], case.config["style_dim"], case.config["bias"]
    x, style = case["x"], case["style"]
    near(SimAM()(x), case["simam"], atol=FORWARD, what="simam")

    def loaded(network: torch.nn.Module, prefix: str) -> torch.nn.Module:
        network.load_state_dict(ours(case.group(prefix)))
        return network

    near(loaded(AdaIN(channels, width), "adain/")(x, style), case["adain"], atol=FORWARD, what="adain")
    for attention in (False, True):
        mark = f"att{int(attention)}"
        made = {
            "mod": (ModBlock(channels, width, bias=bias, attention=attention), "mod/"),
            "ada": (AdaBlock(channels, width, bias=bias, attention=attention), "ada/"),
            "plain": (PlainBlock(channels, norm="instance", bias=bias, attention=attention), f"plain_{mark}/"),
        }
        for name, (block, prefix) in made.items():
            output = loaded(block, prefix)(x, style)
            near(output, case[f"{name}_block_{mark}"], atol=FORWARD, what=f"{name} {mark}")
    conv = loaded(ModulatedConv(channels, bias="modconv/bias" in case), "modconv/")
    near(conv(x, case["modconv_style"]), case["modconv"], atol=FORWARD, what="modconv")
    outputs, inputs = case["eqlinear/weight.data"].shape
    linear = loaded(EqualizedLinear(inputs, outputs), "eqlinear/")
    near(linear(case["eqlinear_x"]), case["eqlinear"], atol=FORWARD, what="eqlinear")


@golden("bcistainer", "generator")
def generator(case: Case) -> None:
    network = generator_of(case.config, case.group("w/"))
    encoded = network.encode(case["x"])
    near(encoded, case["enc1"], atol=FORWARD, what="enc1")
    near(network.style(encoded), case["style"], atol=FORWARD, what="style")
    outputs = network(case["x"])
    near(outputs.ihc, case["ihc"], atol=FORWARD, what="ihc")
    if "ihc_lowres" in case:
        near(outputs.lowres, case["ihc_lowres"], atol=FORWARD, what="ihc_lowres")
    near(outputs.logits, case["level_logits"], atol=FORWARD, what="level_logits")


@golden("bcistainer", "cahr_generator")
def cahr_generator(case: Case) -> None:
    config = case.config
    weights = case.group("w/")
    masking = {name: tensor for name, tensor in weights.items() if name.startswith("mask_")}
    network = generator_of(config, {name: tensor for name, tensor in weights.items() if name not in masking})
    mask = CropMask(
        width=config["init_channels"],
        encoder_blocks=config["encoder1_blocks"],
        norm=config["norm_type"],
        of_middle={"dec1": True, "enc1": False}[config["mask_dec_input"]],
    ).eval()
    mask.load_state_dict(masking)

    corners = [(int(top), int(left)) for top, left in case["crop_index"]]
    if 2 * config["crop_size"] == config["full_size"]:
        assert corners == half_overlapping(config["full_size"], config["crop_size"])
    merged = merge_crops(network, mask, case["x"], [crop[None] for crop in case["crops"]], corners)
    if "ihc_lowres" in case:
        near(merged.whole.lowres, case["ihc_lowres"], atol=FORWARD, what="ihc_lowres")
    near(merged.whole.logits, case["level_logits"], atol=FORWARD, what="level_logits")
    near(mean_of_wholes(merged), case["infer_full"], atol=FORWARD, what="infer_full")
    near(mean_of_crops(merged, corners), case["infer_crop"], atol=FORWARD, what="infer_crop")
    # The file does not say which crop its training pass saw.
    seen = min(range(len(corners)), key=lambda i: float((merged.crops[i].detach() - case["ihc_crop"]).abs().max()))
    near(merged.crops[seen], case["ihc_crop"], atol=FORWARD, what="ihc_crop")
    near(merged.blended[seen], case["train_merge"], atol=FORWARD, what="train_merge")


@golden("bcistainer", "comparator")
def comparator(case: Case) -> None:
    config = case.config
    network = Comparator(
        full_size=config["full_size"],
        width=config["init_channels"],
        max_width=config["max_channels"],
        levels=config["levels"],
        norm=config.get("norm_type", config.get("norm", "batch")),
        dropout=float(config["dropout"]),
    )
    network.load_state_dict(ours(case.group("w/")))
    output = network.train(config["mode"] == "train")(case["x"])
    near(output.latent, case["latent"], atol=FORWARD, what="latent")
    near(output.logits, case["level_logits"], atol=FORWARD, what="level_logits")


@golden("bcistainer", "multiscale_discriminator")
def multiscale_discriminator(case: Case) -> None:
    config = case.config
    network = MultiScaleDiscriminator(
        inputs=config["in_channels"],
        width=config["init_channels"],
        n_layers=config["num_layers"],
        scales=config["num_depths"],
        norm=config["norm"],
    )
    network.load_state_dict(case.group("w/"))
    for mark in ("", "_train"):
        network.train(bool(mark))
        for scale, logits in enumerate(network(case["x"])):
            near(logits, case[f"y{scale}{mark}"], atol=FORWARD, what=f"y{scale}{mark}")


@golden("bcistainer", "losses")
def losses(case: Case) -> None:
    # The settings of this kind stand in words, the weights of some terms in their names.
    config, target = Config(), case["target"]
    side, sigma, k1, k2 = (setting(case.config["ssim"], name) for name in ("window", "sigma", "k1", "k2"))
    window = {"side": int(side), "sigma": sigma, "k1": k1, "k2": k2}
    predicted = leaf(case["pred"])
    loss = config.ssim_weight * (1 - ssim((predicted + 1) / 2, (target + 1) / 2, **window).mean())
    near(loss, case["loss_ssim"], rtol=LOSS, what="loss_ssim")
    loss.backward()
    near_gradient(predicted.grad, case["grad_ssim"], what="grad_ssim")
    found = ssim(levels(case["pred"]), levels(target), value_range=255.0, **window).mean()
    near(found, case["val_ssim"], rtol=LOSS, what="val_ssim")
    psnr = 10 * torch.log10(255**2 / (levels(case["pred"]) - levels(target)).square().mean((1, 2, 3))).mean()
    near(psnr, case["val_psnr"], rtol=LOSS, what="val_psnr")

    low = shrunk(target, side=case["pred_lowres"].shape[2:])
    near(low, case["target_lowres"], atol=1e-5, what="target_lowres")
    weight = case.config["rec_weight"]
    high_term = weight * PIXEL["mae"](case["pred"], target)
    low_term = weight * config.lowres_weight * PIXEL["mae"](case["pred_lowres"], low)
    near(high_term, case["loss_rec_high"], rtol=LOSS, what="loss_rec_high")
    near(low_term, case["loss_rec_low"], rtol=LOSS, what="loss_rec_low")
    near(high_term + low_term, case["loss_rec_total"], rtol=LOSS, what="loss_rec_total")
    for name, kind in (("mse", "mse"), ("smae", "smooth_mae"), ("charb", "charbonnier")):
        near(PIXEL[kind](case["pred"], target), case[f"loss_rec_{name}"], rtol=LOSS, what=name)

    classes = re.search(r"\[(.*)\]", case.config["focal"])
    assert classes
    alpha, gamma = [float(number) for number in classes[1].split(",")], setting(case.config["focal"], "gamma")
    for name in (name for name in case.arrays if re.fullmatch(r"loss_(cls_)?focal_w[\d.]+", name)):
        logits = leaf(case["logits"])
        level = float(name.rpartition("_w")[2]) * focal(logits, case["labels"], weights=alpha, gamma=gamma).mean()
        near(level, case[name], rtol=LOSS, what=name)
        gradient = name.replace("loss_", "grad_", 1)
        if gradient in case:
            level.backward()
            near_gradient(logits.grad, case[gradient], what=gradient)
    entropy = focal(case["logits"], case["labels"], weights=(1.0,) * case["logits"].shape[1], gamma=0.0).mean()
    near(entropy, case["loss_ce"], rtol=LOSS, what="loss_ce")
    near(unlikeness(case["latent_pred"], case["latent_real"]), case["loss_csim"], rtol=LOSS, what="loss_csim")

    maps = [case[name] for name in sorted(case.arrays) if name[0] == "d" and name[1:].isdigit()]
    for side in ("fake", "real"):
        smoothing = [case[f"smooth{scale}_{side}"] for scale in range(len(maps))]
        near(smoothed_lsgan(maps, smoothing, real=side == "real"), case[f"lsgan_{side}"], rtol=LOSS, what=side)


def setting(words: str, name: str) -> float:
    """The number after a name."""
    found = re.search(rf"\b{name} ([\d.]*\d)", words)
    assert found, f"no {name} in {words!r}"
    return float(found[1])


def levels(picture: Tensor) -> Tensor:
    return (picture + 1) / 2 * 255


@golden("bcistainer", "ema")
def ema(case: Case) -> None:
    config = case.config
    network, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)

    def decay(at: Progress) -> float:
        return average_decay(
            at.step + 1,
            after=config["update_after_step"],
            largest=float(config["beta"]),
            inv_gamma=float(config["inv_gamma"]),
            power=float(config["power"]),
            every=config["update_every"],
        )

    trace = []
    for step, value in enumerate(case["value"]):
        network.weight.data.fill_(float(value))
        move(Average("generator", network, average, decay), Progress(step, len(case["value"]), 10))
        trace.append(float(average.weight.detach()))
    near(torch.tensor(trace), case["ema"], atol=1e-4)


@golden("bcistainer", "lr_warmup_cosine")
def lr_warmup_cosine(case: Case) -> None:
    config = case.config
    rates = []
    for epoch in case["f64_epoch"].tolist():
        floor = config["min_lr"] if epoch >= config["warmup"] else 0.0
        factor = warmup_cosine(epoch, warmup=config["warmup"], epochs=config["epochs"])
        rates.append(floor + (config["base_lr"] - floor) * factor)
    near(torch.tensor(rates, dtype=torch.float64), case["f64_lr"], rtol=1e-9, atol=1e-15)


@golden("bcistainer", "tta_and_range")
def tta_and_range(case: Case) -> None:
    image = case["image"].permute(2, 0, 1)
    assert len(VERSIONS) == len([name for name in case.arrays if name.startswith("tta")])
    for i, (there, back) in enumerate(VERSIONS):
        near(there(image).permute(1, 2, 0), case[f"tta{i}"], what=f"tta{i}")
        near(back(there(image)), image, what=f"back{i}")
    # The reference's way there and back was in float64; in float32 other levels lose one.
    normalised = (image.double() / 127.5 - 1)[None]
    near(normalised[0].permute(1, 2, 0).float(), case["normalised"], atol=1e-6, what="normalised")
    near(mean_of_versions(lambda tiles: tiles, normalised), normalised, atol=1e-6, what="mean of versions")
    cut = (whole_levels_down(normalised) + 1) * 127.5
    near(cut.round()[0].permute(1, 2, 0).to(torch.uint8), case["back_uint8"], what="back_uint8")
