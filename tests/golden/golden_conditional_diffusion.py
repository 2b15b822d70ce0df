"""Gaussian diffusion: the samplers of `conditional_diffusion`, and what DDIB's cases say of the same parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cases import Case, golden, near
from torch import Tensor

from hepipe.diffusion import noise as tables
from hepipe.diffusion import samplers
from hepipe.networks.adm import embed_times


def schedule_of(config: dict[str, Any]) -> tables.NoiseSchedule:
    betas = {"linear": tables.linear_betas, "cosine": tables.cosine_betas}[config["sched"]](config["T"])
    return tables.make_schedule(betas, tables.kept_times(config["T"], config["respace"]))


def stub(config: dict[str, Any], cond: Tensor | float = 0.0) -> Callable[[Tensor, Tensor], Tensor]:
    """The reference's stand-in for a network, told original times, on the scale of 1000 where the settings say so."""
    scale = 1000 / config["T"] if config["rescale_t"] else 1.0

    def predict(x: Tensor, times: Tensor) -> Tensor:
        wave = torch.sin(times.float() * scale / 200).view(-1, 1, 1, 1)
        output = config["a"] * x + config["b"] * wave + config.get("c", 0.0) * cond
        return torch.cat([output, config["d"] * x - 0.2], 1) if config["learn_sigma"] else output

    return predict


def variance_of(config: dict[str, Any]) -> tables.Variance:
    return "learned" if config["learn_sigma"] else config["var"]


@golden("conditional_diffusion", "ddpm")
def ddpm(case: Case) -> None:
    config, draws = case.config, iter(case["noise"])
    assert config["sampler"] == "ddpm"
    sample = samplers.sample_ddpm(
        stub(config, case["cond"]),
        case["x_T"],
        schedule=schedule_of(config),
        noise=lambda like: next(draws),
        predict=config["predict"],
        variance=variance_of(config),
        clip=config["clip_denoised"],
    )
    near(sample, case["x_0"], rtol=1e-4, atol=2e-5, what="x_0")


@golden("conditional_diffusion", "ddim")
def ddim(case: Case) -> None:
    config, draws = case.config, iter(case["noise"])
    assert config["sampler"] == "ddim"
    network = stub(config, case["cond"])
    sample = samplers.sample_ddim(
        lambda x, times: network(x, times)[:, : x.shape[1]],
        case["x_T"],
        schedule=schedule_of(config),
        noise=lambda like: next(draws),
        predict=config["predict"],
        eta=config["eta"],
        clip=config["clip_denoised"],
    )
    near(sample, case["x_0"], rtol=1e-4, atol=2e-5, what="x_0")


@golden("ddib", "schedule")
def schedule(case: Case) -> None:
    made = schedule_of(case.config)
    assert made.times.tolist() == case["timestep_map"].tolist()
    named = {
        "betas": made.betas,
        "alphas_cumprod": made.signal,
        "alphas_cumprod_prev": made.signal_before,
        "alphas_cumprod_next": made.signal_after,
        "posterior_variance": made.posterior_variance,
        "posterior_log_variance_clipped": made.posterior_log_variance,
        "posterior_mean_coef1": made.posterior_clean,
        "posterior_mean_coef2": made.posterior_state,
    }
    for name, table in named.items():
        near(table, case[name], rtol=1e-10, what=name)


@golden("ddib", "timestep_embedding")
def timestep_embedding(case: Case) -> None:
    for size in case.config["dim"]:
        near(embed_times(case["t"], size), case[f"emb{size}"], rtol=1e-5, atol=1e-6, what=f"size {size}")


@golden("ddib", "q_sample")
def q_sample(case: Case) -> None:
    made, clean, noise, i = schedule_of(case.config), case["x_start"], case["noise"], case["t"]
    state = tables.add_noise(made, clean, i, noise)
    near(state, case["x_t"], rtol=1e-5, atol=1e-5, what="x_t")
    found = tables.clean_from(made, case["x_t"], i, noise, "eps")
    near(found, case["x0_from_eps"], rtol=1e-3, atol=5e-3, what="x0_from_eps")
    near(tables.noise_from(made, case["x_t"], i, clean), case["eps_from_x0"], rtol=1e-3, atol=5e-3, what="eps")
    mean = tables.posterior_mean(made, case["x_t"], i, clean)
    near(mean, case["posterior_mean"], rtol=1e-5, atol=1e-5, what="posterior_mean")
    variance = tables.look_up(made.posterior_variance, i, clean).expand_as(clean)
    near(variance, case["posterior_variance"], rtol=1e-5, atol=1e-5, what="posterior_variance")
    log = tables.log_variance(made, clean, i, "small")
    near(log, case["posterior_log_variance"], rtol=1e-5, atol=1e-5, what="posterior_log_variance")


@golden("ddib", "steps")
def steps(case: Case) -> None:
    config, made, state, i = case.config, schedule_of(case.config), case["x_t"], case["t"]
    output = stub(config)(state, made.times[i])
    output, learned = output.chunk(2, 1) if config["learn_sigma"] else (output, None)
    bare = tables.clean_from(made, state, i, output, config["predict"])
    clean = bare.clamp(-1, 1) if config["clip_denoised"] else bare
    # Without clamping the clean image from the last times is a difference of numbers 157 times as large.
    rtol = 1e-4 if config["clip_denoised"] else 1e-3
    near(clean, case["ddim_x0"], rtol=rtol, atol=1e-4, what="ddim_x0")
    eta = config["eta"]
    moving = (i > 0).float().view(-1, 1, 1, 1)
    reached = samplers.ddim_step(made, state, i, clean, moving * case["noise_ddim"], eta=eta)
    near(reached, case["ddim_sample"], rtol=rtol, atol=1e-4, what="ddim_sample")
    log = tables.log_variance(made, state, i, variance_of(config), learned)
    reached = samplers.ancestral_step(made, state, i, clean, log, case["noise_ddpm"])
    near(reached, case["ddpm_sample"], rtol=rtol, atol=1e-4, what="ddpm_sample")
    near(clean, case["ddim_reverse_x0"], rtol=rtol, atol=1e-4, what="ddim_reverse_x0")
    later = samplers.ddim_inverse_step(made, state, i, clean)
    near(later, case["ddim_reverse_sample"], rtol=rtol, atol=1e-4, what="ddim_reverse_sample")


@golden("ddib", "loss")
def loss(case: Case) -> None:
    config, made, i = case.config, schedule_of(case.config), case["t"]
    clean, noise = case["x_start"], case["noise"]
    state = tables.add_noise(made, clean, i, noise)
    output = stub(config)(state, made.times[i])
    output, learned = output.chunk(2, 1) if config["learn_sigma"] else (output, None)
    wanted = tables.target_of(made, clean, i, noise, config["predict"])
    whole = squared = ((wanted - output) ** 2).flatten(1).mean(1)
    near(squared, case["loss_mse"], rtol=1e-4, atol=1e-5, what="mse")
    if learned is not None:
        found = tables.clean_from(made, state, i, output, config["predict"])
        log = tables.log_variance(made, state, i, "learned", learned)
        bits = tables.variational_bound(made, clean, state, i, found, log)
        if config["loss"].startswith("rescaled"):
            bits = bits * made.n_full / 1000
        near(bits, case["loss_vb"], rtol=1e-4, atol=1e-5, what="vb")
        whole = squared + bits
    near(whole, case["loss_loss"], rtol=1e-4, atol=1e-5, what="loss")


@golden("ddib", "bridge")
def bridge(case: Case) -> None:
    config, made = case.config, schedule_of(case.config)
    source, target = (stub({**config, **ends(config, side)}) for side in ("source", "target"))
    latent = samplers.invert_ddim(source, case["source"], schedule=made, predict=config["predict"])
    near(latent, case["latent"], rtol=1e-4, atol=5e-5, what="latent")
    made_target = samplers.sample_ddim(
        target, case["latent"], schedule=made, predict=config["predict"], clip=config["clip_denoised_decode"]
    )
    near(made_target, case["target"], rtol=1e-4, atol=5e-5, what="target")
    back = samplers.sample_ddim(source, case["latent"], schedule=made, predict=config["predict"], clip=False)
    near(back, case["reconstruction_with_source_model"], rtol=1e-4, atol=5e-5, what="reconstruction")


def ends(config: dict[str, Any], side: str) -> dict[str, Any]:
    return {"a": config[f"{side}_a"], "b": config[f"{side}_b"]}
