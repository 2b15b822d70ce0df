"""Metrics as the models' own repositories compute them; PHV's ResNet-50 is not built yet."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case, golden, near
from golden_atst_net import common_tile, drawn_by
from torch import Tensor

from hepipe.metrics import frechet, ssim
from hepipe.metrics.backbones import hash_distance
from hepipe.models.zoo.cssp2p import imagenet_from_unit


def tile_of(case: Case, name: str) -> np.ndarray:
    return drawn_by(case.arrays[name], common_tile(case.path.parent.parent))


@golden("model_repo_metrics", "css_sewar")
def structure(case: Case) -> None:
    first, second = tile_of(case, "recipe_a"), tile_of(case, "recipe_b")
    side = int(case["ws"])
    moments = ssim.uniform_moments(first.astype(np.float64), second.astype(np.float64), side=side)
    near(moments.similarity(255.0).mean(), float(case["ssim"]), atol=1e-6, what="ssim")
    near(moments.contrast(255.0).mean(), float(case["cs"]), atol=1e-6, what="cs")
    if side == 5:
        near(ssim.css_u5(first, second), float(case["cs"]), atol=1e-6, what="css_u5")


@golden("model_repo_metrics", "kid")
def kernel_distance(case: Case) -> None:
    first, second = case.arrays["X"], case.arrays["Y"]
    mean, sd = frechet.kernel_distance_over_subsets(
        first,
        second,
        subsets=int(case["n_subsets"]),
        subset_size=int(case["subset_size"]),
        seed=int(case["np_seed"]),
    )
    near(mean, float(case["kid_mean"]), rtol=1e-9, what="mean over subsets")
    near(sd, float(case["kid_std"]), rtol=1e-9, what="SD over subsets")
    near(frechet.kernel_distance(first, second), float(case["mmd2_full"]), rtol=1e-9, what="of all")


@golden("model_repo_metrics", "phv_from_pooled")
def hash_of_pooled(case: Case) -> None:
    taps = [case[name].double()[:, :, None, None] for name in ("pooled_fake", "pooled_real")]
    shares = hash_distance(taps[:1], taps[1:], threshold=float(case["T"]))[:, 0].double()
    near(100 * (1 - shares), case["similarity_percent_per_image"], atol=1e-4, what="similarity of each image")
    near(shares.mean(), float(case["dissimilar_fraction"]), atol=1e-6, what="dissimilar_fraction")


@golden("model_repo_metrics", "phv")
def hash_of_layers(case: Case) -> None:
    """The network is replaced by poolings of its input, which is made of [0, 1] as if that were [-1, 1]."""

    def layers(name: str) -> tuple[Tensor, list[Tensor]]:
        tile = torch.from_numpy(tile_of(case, name).copy()).permute(2, 0, 1)[None].float() / 255
        given = imagenet_from_unit((tile + 1) / 2)
        return given, [
            (1 + i) * F.avg_pool2d(given, 2**i).repeat(1, 2 + i, 1, 1) for i in range(len(case.arrays["layers"]))
        ]

    given, fake = layers("recipe_fake")
    step = given.shape[2] // case["net_input_s16"].shape[2]
    near(given[:, :, ::step, ::step], case["net_input_s16"], atol=1e-5, rtol=1e-4, what="input")
    near(given.mean((0, 2, 3)), case["net_input_mean"], atol=1e-5, rtol=1e-4, what="mean of the input")
    found = hash_distance(fake, layers("recipe_real")[1], threshold=float(case["T"]))
    near(found[0], case["phv"], atol=1e-6, what="phv")
