"""BBDM: the bridge's tables, states, losses and walks, and its U-Net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from cases import Case, golden, near
from torch import Tensor

from hepipe.diffusion import bridge as bridges
from hepipe.models.zoo import bbdm
from hepipe.networks.adm import AdmUnet, adm_state


def bridge_of(case: Case) -> bridges.Bridge:
    return bridges.make_bridge(case.config["T"], scale=case.config["max_var"], course=case.config["mt"])


def times_of(case: Case) -> list[int]:
    config = case.config
    spacing = {"linear": "linear", "cosine": "cosine"}[config["stype"]]
    return bridges.visited_times(config["T"], config["S"] if config["skip"] else None, spacing=spacing)


def same_times(case: Case) -> list[int]:
    """The reference's list of times, if ours is the same.

    Its strides are added up in float32: where a multiple is whole, rounding may take one off, on some machines.
    """
    ours, theirs, parts = times_of(case), case["steps"].tolist(), case.config["S"] - 2
    assert len(ours) == len(theirs)
    for k, (own, other) in enumerate(zip(ours, theirs, strict=True)):
        whole = case.config["stype"] == "linear" and (case.config["T"] - 1) * k % parts == 0
        assert own == other or (whole and own - other == 1), f"time {k}: {own}, {other} expected"
    return theirs


def stub(config: dict[str, Any], y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The reference's stand-in for a network; it sees the source only where it is a condition."""
    c = config.get("c", 0.0) if config.get("condition_key", "nocond") != "nocond" else 0.0
    return lambda x, t: config["a"] * x + config["b"] * (t.float() / 1000).view(-1, 1, 1, 1) + c * y


@golden("bbdm", "schedule")
def schedule(case: Case) -> None:
    bridge = bridge_of(case)
    tables = {
        "m_t": bridge.share,
        "m_tminus": bridge.share_before,
        "variance_t": bridge.variance,
        "variance_tminus": bridge.variance_before,
        "variance_t_tminus": bridge.transition_variance,
        "posterior_variance_t": bridge.posterior_variance,
    }
    for name, table in tables.items():
        near(table.float(), case[name], rtol=1e-6, atol=1e-7, what=name)
    same_times(case)


@golden("bbdm", "q_sample")
def q_sample(case: Case) -> None:
    bridge, objective = bridge_of(case), case.config["objective"]
    x0, y, t, noise = case["x0"], case["y"], case["t"], case["noise"]
    state = bridges.bridge_state(bridge, x0, y, t, noise)
    near(state, case["x_t"], rtol=1e-5, atol=1e-6, what="x_t")
    target = bridges.bridge_target(objective, state, x0, y, noise)
    near(target, case["objective"], rtol=1e-5, atol=1e-6, what="objective")
    found = bridges.target_from(bridge, objective, case["x_t"], y, t, case["objective_hat"])
    rtol, atol = (1e-4, 1e-3) if objective == "noise" else (1e-5, 1e-6)
    near(found, case["x0_from_hat"], rtol=rtol, atol=atol, what="x0_from_hat")


@golden("bbdm", "loss")
def loss(case: Case) -> None:
    config = case.config
    x0, y, t, noise = three(case["x0"]), three(case["y"]), case["t"], three(case["noise"])
    conditioned = config["condition_key"] != "nocond"
    method = bbdm.Bbdm(
        bbdm.PRESETS["tiny"].model_copy(
            update={
                "n_times": config["T"],
                "course": config["mt"],
                "max_variance": config["max_var"],
                "objective": config["objective"],
                "loss": config["loss_type"],
                "condition": "concat" if conditioned else "nocond",
            }
        )
    )
    denoiser = stub(config, y)
    method.network.forward = lambda x, times: denoiser(x[:, :3], times)  # type: ignore[method-assign]
    near(method.loss(y, x0, t, noise), case["loss"], rtol=1e-5, atol=1e-6, what="loss")
    state = bridges.bridge_state(method.bridge, x0, y, t, noise)
    found = bridges.target_from(method.bridge, config["objective"], state, y, t, denoiser(state, t))
    near(found, three(case["x0_recon"]), rtol=1e-5, atol=1e-6, what="x0_recon")


def three(x: Tensor) -> Tensor:
    """Pictures of three channels; others, such as codes, stacked up to one and that repeated: all is elementwise."""
    return x if x.shape[1] == 3 else x.flatten(1, 2)[:, None].expand(-1, 3, -1, -1)


@golden("bbdm", "p_sample_steps")
def p_sample_steps(case: Case) -> None:
    config, bridge, y = case.config, bridge_of(case), case["y"]
    denoiser = stub(config, y)
    for k, (time, after) in enumerate(zip(case["t"].tolist(), case["t_next"].tolist(), strict=True)):
        state, t = case["x_t"][k], torch.full((len(y),), time)
        x0 = bridges.target_from(bridge, config["objective"], state, y, t, denoiser(state, t))
        x0 = x0.clamp(-1, 1) if config["clip_denoised"] else x0
        near(x0, case["x0_recon"][k], rtol=1e-4, atol=1e-5, what=f"x0 at {time}")
        reached = x0
        if after >= 0:
            until = torch.full_like(t, after)
            reached = bridges.bridge_step(
                bridge, state, x0, y, case["noise"][k], t=t, until=until, eta=config["eta"], eta_mode="reference"
            )
        near(reached, case["x_next"][k], rtol=1e-4, atol=1e-5, what=f"state after {time}")


@golden("bbdm", "loop")
def loop(case: Case) -> None:
    config, y = case.config, case["y"]
    times, draws = same_times(case), iter(case["noise"])
    walk = bridges.walk_bridge(
        stub(config, y),
        y,
        bridge=bridge_of(case),
        times=times,
        noise=lambda like: next(draws),
        objective=config["objective"],
        eta=config["eta"],
        eta_mode="reference",
        clip=config["clip_denoised"],
    )
    states = list(walk)
    assert len(states) == len(times) + 1
    for i, kept in zip(case["kept_index"].tolist(), case["kept_x"], strict=True):
        near(states[i], kept, rtol=1e-4, atol=2e-5, what=f"state {i}")
    near(states[-1], case["x_final"], rtol=1e-4, atol=2e-5, what="x_final")


@golden("bbdm", "unet")
@golden("ddib", "unet")
def unet(case: Case) -> None:
    network = adm_of(case)
    assert sum(parameter.numel() for parameter in network.parameters()) == case.config["params"]
    x = torch.cat([case["x"], case["context"]], 1) if "context" in case else case["x"]
    with torch.no_grad():
        labels = next((case[name] for name in ("y", "labels", "label") if name in case), None)
        near(network(x, case["t"], labels), case["out"], rtol=1e-3, atol=1e-4, what="out")


def adm_of(case: Case) -> AdmUnet:
    """The network of a case's settings with its weights."""
    config = case.config
    head_channels = config.get("num_head_channels", -1)
    factors = [2**level for level in range(len(config["channel_mult"]))]
    network = AdmUnet(
        inputs=case["w::input_blocks.0.0.weight"].shape[1],
        outputs=config["out_channels"],
        width=config["model_channels"],
        multipliers=config["channel_mult"],
        blocks=config["num_res_blocks"],
        # The reference takes factors that no level has, as its own templates hold, for none.
        attention_factors=[factor for factor in factors if factor in config["attention_resolutions"]],
        head_channels=head_channels if head_channels and head_channels > 0 else None,
        heads=config.get("num_heads", 1),
        scale_shift=config["use_scale_shift_norm"],
        residual_resampling=config["resblock_updown"],
        n_classes=config.get("num_classes"),
    ).eval()
    order = "qkv_first" if config.get("use_new_attention_order") else "head_first"
    network.load_state_dict(adm_state(case.group("w::"), network, qkv_order=order))
    return network
