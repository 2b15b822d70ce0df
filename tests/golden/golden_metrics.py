"""Metrics against published libraries: `metrics/README.md` of the golden folder says which and how close."""

from __future__ import annotations

import csv
import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from cases import Case, golden, near
from PIL import Image

from hepipe.errors import WeightsError
from hepipe.evaluation import statistics
from hepipe.geometry import Transform
from hepipe.metrics import backbones, dab, frechet, lpips, pixel, ssim
from hepipe.registration import score, similarity
from hepipe.weights.store import load

THRESHOLDS_OD = (0.2, 0.4, 0.6)
LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
"""Of red, green and blue, as scikit-image weighs them."""


def picture(folder: Path, name: str) -> np.ndarray:
    """A tile; `a_identity` is the real one."""
    stem = name.removesuffix(".png").replace("_identity", "_real")
    with Image.open(folder / "images" / f"{stem}.png") as tile:
        return np.asarray(tile.convert("RGB"))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@golden("metrics", "fullref")
def full_reference(case: Case) -> None:
    folder = case.path.parent
    for row in table(case.path):
        fake, real = picture(folder, row["fake"]), picture(folder, row["real"])
        found = {
            "mae": (pixel.mae(fake, real), 1e-8),
            "mse": (pixel.mse(fake, real), 1e-8),
            "psnr_skimage_u8": (pixel.psnr(fake, real), 1e-8),
            "ssim_torchmetrics_f64": (ssim.ssim(fake, real), 1e-7),
            "ssim_skimage_uniform7_rgb_u8": (ssim.ssim_sk7(fake, real), 1e-7),
            "cs_sewar_uniform5_valid": (ssim.css_u5(fake, real), 1e-7),
            "msssim_torchmetrics_f64": (ssim.msssim(fake, real), 1e-7),
            "css_reference_f64": (ssim.css(fake, real), 1e-7),
            "dab_jsd150_reference_f32": (dab.histogram_distance_own_range(fake, real), 2e-5),
        }
        for name, (value, atol) in found.items():
            # The table holds ten digits, which are fewer than the tolerance asks for in the largest values.
            near(value, float(row[name]), atol=atol, rtol=5e-9, what=f"{row['fake']} {name}")


@golden("metrics", "css_he")
def contrast_and_structure_of_he(case: Case) -> None:
    folder = case.path.parent
    for row in table(case.path):
        fake, he = picture(folder, row["fake"]), picture(folder, row["he"])
        near(ssim.css(fake, he), float(row["css_reference_f64"]), atol=1e-7, what=row["fake"])
        near(ssim.css_u5(fake, he), float(row["cs_sewar_uniform5_valid"]), atol=1e-7, what=row["fake"])


def densities_of(tile: np.ndarray) -> dict[str, float]:
    """What the goldens say of a tile's stains."""
    stains = dab.separate_hdab(tile)
    positive = stains.dab >= THRESHOLDS_OD[0]
    shares = dab.bands(stains.dab, np.ones_like(positive), thresholds_od=THRESHOLDS_OD)
    return {
        "dab_mean_od": stains.dab.mean(),
        "h_mean_od": stains.haematoxylin.mean(),
        "dab_iod": dab.integrated_od(stains.dab),
        "dab_iod_pos": dab.integrated_od(stains.dab, positive),
        "pos_fraction": positive.mean(),
        "frac_1": shares[0],
        "frac_2": shares[1],
        "frac_3": shares[2],
        "hscore_pixel": dab.hscore(shares),
        "dab_p50": np.percentile(stains.dab, 50),
        "dab_p95": np.percentile(stains.dab, 95),
    }


@golden("metrics", "dab")
def densities(case: Case) -> None:
    for name, expected in json.loads(case.path.read_text()).items():
        for key, value in densities_of(picture(case.path.parent, name)).items():
            near(value, expected[key], rtol=1e-9, atol=1e-15, what=f"{name} {key}")


@golden("metrics", "dab_masks")
def masks(case: Case) -> None:
    for name, expected in json.loads(case.path.read_text()).items():
        virtual, real = (
            dab.separate_hdab(picture(case.path.parent, tile)).dab >= THRESHOLDS_OD[0]
            for tile in (name, f"{name.split('_')[0]}_real")
        )
        overlap, outline = dab.overlap(virtual, real), dab.boundary_distance(virtual, real)
        found = {
            "dice": overlap.dice,
            "iou": overlap.iou,
            "tpr": overlap.tpr,
            "tnr": overlap.tnr,
            "hd_surface": outline.hausdorff,
            "hd95_surface": outline.hausdorff95,
            "assd": outline.mean,
            "hd_skimage_points": dab.hausdorff_points(virtual, real),
        }
        for key, value in found.items():
            # A distance to an empty mask has no golden value.
            near(value, expected.get(key, math.nan), atol=1e-9, what=f"{name} {key}")


@golden("metrics", "fid_kid")
def distances_of_sets(case: Case) -> None:
    features = np.load(case.path / "features.npz")
    expected = json.loads((case.path / "fid_kid_expected.json").read_text())
    fake, real = features["full_rank_d64_fake"], features["full_rank_d64_real"]
    half = features["split_idx"]
    sets = {
        "full_rank_d64": (fake, real),
        "n_less_than_d": (features["n_less_than_d_fake"], features["n_less_than_d_real"]),
        "identical_d64": (fake, fake),
        "split_half_same_distribution_d64": (fake[half[: len(half) // 2]], fake[half[len(half) // 2 :]]),
    }
    for name, (first, second) in sets.items():
        wanted = expected[name]
        rtol = 1e-4 if name == "n_less_than_d" else 1e-6
        near(frechet.frechet_distance(first, second), wanted["fid_torch_fidelity"], rtol=rtol, atol=1e-9, what=name)
        full = wanted["kid_full_unbiased_torch_fidelity_first_m"]
        near(frechet.kernel_distance(first, second), full, atol=1e-9, what=f"{name}, kernel")
        mean, sd = frechet.kernel_distance_over_subsets(
            first,
            second,
            subsets=wanted["kid_subsets"],
            subset_size=wanted["kid_subset_size"],
            seed=wanted["kid_rng_seed"],
        )
        near(mean, wanted["kid_mean_torch_fidelity"], atol=1e-9, what=f"{name}, subsets")
        near(sd, wanted["kid_std_torch_fidelity_ddof0"], atol=1e-9, what=f"{name}, SD over subsets")


@golden("metrics", "stats")
def statistics_of_tiles(case: Case) -> None:
    rows = table(case.path / "tiles.csv")
    expected = json.loads((case.path / "tiles_expected.json").read_text())
    drawn = re.search(r"default_rng\((\d+)\).*size=\((\d+),", expected["algorithm"])
    assert drawn
    seed, draws = int(drawn[1]), int(drawn[2])
    models = sorted({row["model"] for row in rows})
    values = {name: [float(row["ssim"]) for row in rows if row["model"] == name] for name in models}
    cases = {name: [row["case"] for row in rows if row["model"] == name] for name in models}
    for name, wanted in expected["per_model"].items():
        found = statistics.summarize(values[name], cases[name], draws=draws, seed=seed)
        near(found.mean, wanted["tile_mean"], atol=1e-9)
        near(found.sd, wanted["tile_sd_ddof1"], atol=1e-9)
        near(found.case_mean, wanted["case_mean"], atol=1e-9)
        near([found.case_low, found.case_high], wanted["case_mean_ci95_percentile"], atol=1e-9)
        near([found.low, found.high], wanted["tile_mean_ci95_cluster_percentile"], atol=1e-9)
    p_values = []
    for pair, wanted in expected["pairwise"].items():
        first, second = pair.split("-")
        found = statistics.compare(values[first], values[second], cases[first], draws=draws, seed=seed)
        near(found.difference, wanted["mean_diff"], atol=1e-9)
        near([found.low, found.high], wanted["ci95_cluster_percentile"], atol=1e-9)
        near(found.p_wilcoxon, wanted["wilcoxon_p_exact"], atol=1e-9)
        p_values.append(found.p_wilcoxon)
    near(statistics.holm(p_values), [wanted["wilcoxon_p_holm"] for wanted in expected["pairwise"].values()], atol=1e-9)


def recipe(layers: torch.nn.Module, prefix: str, seed: int) -> dict[str, torch.Tensor]:
    """The folder's weights for a network of convolutions, from the names of its tensors."""
    drawn = {}
    for name, value in layers.state_dict().items():
        own = f"{prefix}{name}"
        z = np.random.RandomState((zlib.crc32(own.encode()) ^ seed) & 0xFFFFFFFF).standard_normal(tuple(value.shape))
        scaled = 0.05 * z if name.endswith("bias") else z * math.sqrt(2 / math.prod(value.shape[1:]))
        drawn[own] = torch.from_numpy(scaled).float()
    return drawn


def perceptual(folder: Path, expected: Mapping[str, Any], backbone: lpips.Backbone) -> None:
    """LPIPS with drawn backbones and the trained heads, in the right range and as CSSP2P feeds it."""
    heads = load(lpips.ROLES[backbone][1])
    layers = lpips.alexnet_layers() if backbone == "alex" else lpips.vgg16_layers()
    network = lpips.Lpips(backbone, features=recipe(layers, "features.", expected["seed"]), heads=heads)
    for name, wanted in expected["lpips"][f"{backbone}_weights"].items():
        own = network.state_dict()[name].double()
        near(own.sum().item(), wanted["sum"], rtol=1e-4, what=name)
    side = expected["crop"]
    for pair, wanted in expected["lpips"].items():
        if not pair.startswith(f"{backbone}|"):
            continue
        tiles = [
            torch.from_numpy(picture(folder, name)[:side, :side].transpose(2, 0, 1)[None].copy())
            for name in pair.split("|")[1:]
        ]
        near(network.of_pictures(*tiles).item(), wanted["minus1_1"], rtol=1e-4, atol=1e-9, what=pair)
        unscaled = network(*(tile.float() / 255 for tile in tiles)).item()
        near(unscaled, wanted["fed_0_1_unscaled"], rtol=1e-4, atol=1e-9, what=f"{pair} unscaled")


@golden("metrics", "deep")
def deep_features(case: Case) -> None:
    """The stand-in and LPIPS of AlexNet and VGG-16; the other published networks are not built yet."""
    network = backbones.EfficientNetLite0().eval()
    try:
        network.load_state_dict(load("standin"))
    except WeightsError as error:
        pytest.skip(str(error))
    expected = json.loads((case.path / "standin_expected.json").read_text())
    pooled = np.load(case.path / "standin_efficientnet_lite0.npz")
    taps = {}
    with torch.inference_mode():
        for name in pooled.files:
            tile = torch.from_numpy(picture(case.path.parent, name).transpose(2, 0, 1)[None].copy())
            taps[name], features = network(tile)
            near(features[0], pooled[name], atol=1e-3 * float(np.abs(pooled[name]).max()), what=name)
        for pair, wanted in expected["pd_standin"].items():
            fake, real = pair.split("|")
            found = backbones.perceptual_distance(taps[fake], taps[real]).item()
            near(found, wanted, rtol=1e-3, what=pair)
    whole = json.loads((case.path / "deep_expected.json").read_text())
    try:
        for backbone in lpips.ROLES:
            perceptual(case.path.parent, whole, backbone)
    except WeightsError as error:
        pytest.skip(f"stand-in features agree; {error}")
    pytest.xfail("stand-in features and LPIPS agree; PHV, FID-Inception and LPIPS of SqueezeNet are not built yet")


def likeness(he: np.ndarray, ihc: np.ndarray) -> dict[str, float]:
    """How far a tile of each stain show the same structure; both in grey and in haematoxylin."""
    grey = [(tile / 255 @ LUMINANCE).ravel() for tile in (he, ihc)]
    densities = (dab.haematoxylin_of_he(he), dab.separate_hdab(ihc).haematoxylin)
    nuclei = [density.ravel() for density in densities]
    return {
        "nmi_skimage_gray_bins100": similarity.mutual_information(*grey),
        "nmi_skimage_h_bins100": similarity.mutual_information(*nuclei),
        "ncc_gray": similarity.correlation(*grey),
        "ncc_hematoxylin": similarity.correlation(*nuclei),
    }


@golden("metrics", "alignment")
def alignment(case: Case) -> None:
    for name, wanted in json.loads(case.path.read_text()).items():
        he = picture(case.path.parent, f"{name.split('_')[0]}_he")
        for key, value in likeness(he, picture(case.path.parent, name)).items():
            near(value, wanted[key], atol=1e-6, what=f"{name} {key}")
    pytest.xfail("likeness agrees; mutual information in nats and the shift by phase correlation are not built yet")


@golden("metrics", "bci_pairs")
def real_pairs(case: Case) -> None:
    folder = case.path.parents[2] / "data" / "tiles-bci-he-her2"
    if not folder.is_dir():
        pytest.skip("no BCI pairs beside the golden values")
    expected = json.loads(case.path.read_text())
    rows, columns = (slice(int(a), int(b) + 1) for a, b in re.findall(r"(\d+)\.\.(\d+)", expected.pop("crop")))
    for name, wanted in expected.items():
        tiles = [np.asarray(Image.open(folder / stain / name).convert("RGB")) for stain in ("HE", "HER2")]
        same = [int(tile.sum()) for tile in tiles] == [wanted["decoded_sum_he"], wanted["decoded_sum_ihc"]]
        he, ihc = (tile[rows, columns] for tile in tiles)
        found = {
            **densities_of(ihc),
            **likeness(he, ihc),
            "css_reference_f64": ssim.css(ihc, he),
            "cs_sewar_uniform5_valid": ssim.css_u5(ihc, he),
            "ssim_torchmetrics_f64": ssim.ssim(ihc, he),
        }
        for key, value in found.items():
            # Another decoder of JPEG gives other values.
            near(value, wanted[key], atol=1e-6 if same else 1e-3, rtol=1e-9 if same else 1e-3, what=f"{name} {key}")
    pytest.xfail("all agree that is built; see alignment for what is not")


@golden("metrics", "landmarks")
def landmarks(case: Case) -> None:
    points: dict[str, list[dict[str, str]]] = {}
    for row in table(case.path.with_name("landmarks.csv")):
        points.setdefault(row["case"], []).append(row)
    expected = json.loads(case.path.read_text())["per_case"]
    assert points.keys() == expected.keys()
    for name, rows in points.items():
        width, height, mpp = (float(rows[0][key]) for key in ("width", "height", "mpp"))
        first, target, warped = (
            np.array([[float(row[f"{axis}_{place}"]) for axis in "xy"] for row in rows])
            for place in ("init", "target", "warped")
        )
        # The file holds where the points went, not the transform.
        transform = create_autospec(Transform, instance=True, fixed_mpp=mpp, moving_mpp=mpp, return_value=warped)
        found = score.landmark_error(transform, first, target, ihc_size_px0=(int(width), int(height)))
        wanted = expected[name]
        assert found["n"] == wanted["n"]
        near(found["robustness"], wanted["robustness"], rtol=1e-6, what=f"{name} robustness")
        for key in ("median", "mean", "max"):
            near(found["tre_um"][key] / mpp, wanted[f"tre_{key}_px"], rtol=1e-6, what=f"{name} error {key}")
            near(found["rtre"][key], wanted[f"rtre_{key}"], rtol=1e-6, what=f"{name} rtre {key}")
    pytest.xfail("errors of every case agree; several annotators, weights by spacing and aggregates are not built yet")
