"""The metrics, each listed once: its title, unit, range, direction and what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hepipe.errors import ConfigError

Better = Literal["higher", "lower", "neither"]
Level = Literal["tile", "case", "set"]
Family = Literal["pixel", "structure", "dab", "published features", "stand-in features"]

INF = math.inf


@dataclass(frozen=True)
class Metric:
    """One column of the score table.

    Attributes:
        name: Includes the flavour; two flavours never share one.
        title: For people.
        better: Which way is better; neither for a plain measurement.
        low: Least possible value.
        high: Largest possible value.
        unit: Of the value; empty for a ratio.
        level: What one value belongs to.
        family: What it looks at.
        meaning: One sentence for a reader's tooltip, with what it cannot see.
        weights: Role of the weights file that it needs.
    """

    name: str
    title: str
    better: Better
    low: int | float
    high: int | float
    unit: str
    level: Level
    family: Family
    meaning: str
    weights: str | None = None

    @property
    def arrow(self) -> str:
        """Direction as a sign."""
        return {"higher": "↑", "lower": "↓", "neither": ""}[self.better]


_ALL = (
    Metric("mae", "MAE", "lower", 0, 255, "grey levels", "tile", "pixel", "Mean absolute error; favours blur."),
    Metric("mse", "MSE", "lower", 0, 65025, "grey levels²", "tile", "pixel", "Mean squared error; favours blur."),
    Metric("psnr", "PSNR", "higher", 0, INF, "dB", "tile", "pixel", "Peak signal-to-noise ratio; favours blur."),
    Metric(
        "ssim",
        "SSIM",
        "higher",
        -1,
        1,
        "",
        "tile",
        "structure",
        "Structural similarity with the real IHC, Gaussian window, whole map; favours blur.",
    ),
    Metric(
        "ssim_sk7",
        "SSIM (7×7)",
        "higher",
        -1,
        1,
        "",
        "tile",
        "structure",
        "Structural similarity as scikit-image computes it by default; the flavour of the BCI and ASP tables.",
    ),
    Metric(
        "msssim",
        "MS-SSIM",
        "higher",
        0,
        1,
        "",
        "tile",
        "structure",
        "Structural similarity over five scales; tiles of 176 px and more.",
    ),
    Metric(
        "css_he",
        "CSS with H&E",
        "higher",
        -1,
        1,
        "",
        "tile",
        "structure",
        "Contrast and structure kept from the H&E (CSSP2P); blind to the stain.",
    ),
    Metric(
        "css_ihc",
        "CSS with IHC",
        "higher",
        -1,
        1,
        "",
        "tile",
        "structure",
        "Contrast and structure shared with the real IHC; lowered by misregistration.",
    ),
    Metric(
        "css_he_u5",
        "CSS 5×5 with H&E",
        "higher",
        -1,
        1,
        "",
        "tile",
        "structure",
        "The same with the flat 5×5 window of PC-StainGAN.",
    ),
    Metric(
        "css_ihc_u5",
        "CSS 5×5 with IHC",
        "higher",
        -1,
        1,
        "",
        "tile",
        "structure",
        "The same with the flat 5×5 window of PC-StainGAN.",
    ),
    Metric(
        "dab_pos_fraction_fake",
        "DAB⁺ share, virtual",
        "neither",
        0,
        1,
        "",
        "tile",
        "dab",
        "Share of tissue over the first threshold.",
    ),
    Metric(
        "dab_pos_fraction_real",
        "DAB⁺ share, real",
        "neither",
        0,
        1,
        "",
        "tile",
        "dab",
        "Share of tissue over the first threshold.",
    ),
    Metric(
        "pos_fraction_error",
        "DAB⁺ share error",
        "lower",
        0,
        1,
        "",
        "tile",
        "dab",
        "Absolute difference of the positive shares; blind to place.",
    ),
    Metric(
        "dab_dice",
        "DAB Dice",
        "higher",
        0,
        1,
        "",
        "tile",
        "dab",
        "Overlap of the DAB-positive areas; lowered by misregistration; undefined where both are empty.",
    ),
    Metric("dab_iou", "DAB IoU", "higher", 0, 1, "", "tile", "dab", "Overlap over union of the DAB-positive areas."),
    Metric("dab_tpr", "DAB sensitivity", "higher", 0, 1, "", "tile", "dab", "Share of real DAB that is virtual too."),
    Metric("dab_tnr", "DAB specificity", "higher", 0, 1, "", "tile", "dab", "Share of DAB-free area left free."),
    Metric(
        "dab_hd95",
        "DAB outline distance",
        "lower",
        0,
        INF,
        "µm",
        "tile",
        "dab",
        "95th percentile of the distances between the outlines of the DAB-positive areas.",
    ),
    Metric("dab_assd", "DAB mean outline distance", "lower", 0, INF, "µm", "tile", "dab", "Their mean."),
    Metric(
        "dab_jsd_fixed",
        "DAB histogram distance",
        "lower",
        0,
        1,
        "",
        "tile",
        "dab",
        "Jensen-Shannon distance of DAB histograms, 0 to 2 OD; blind to place.",
    ),
    Metric(
        "dab_jsd150",
        "DAB histogram distance, own range",
        "lower",
        0,
        1,
        "",
        "tile",
        "dab",
        "The same as CSSP2P computes it: bins over each picture's own range hide a shift of intensity.",
    ),
    Metric("hscore_px_fake", "Pixel H-score, virtual", "neither", 0, 300, "", "tile", "dab", "By px, not by cells."),
    Metric("hscore_px_real", "Pixel H-score, real", "neither", 0, 300, "", "tile", "dab", "By px, not by cells."),
    Metric(
        "hscore_px_error",
        "Pixel H-score error",
        "lower",
        0,
        300,
        "",
        "tile",
        "dab",
        "Absolute difference of the pixel H-scores.",
    ),
    Metric(
        "dab_mean_od_fake",
        "DAB index, virtual",
        "neither",
        0,
        INF,
        "OD",
        "tile",
        "dab",
        "Mean DAB index over tissue: an optical density, but no measure of antigen, as DAB does not obey Beer-Lambert.",
    ),
    Metric(
        "dab_mean_od_real",
        "DAB index, real",
        "neither",
        0,
        INF,
        "OD",
        "tile",
        "dab",
        "Mean DAB index over tissue: an optical density, but no measure of antigen, as DAB does not obey Beer-Lambert.",
    ),
    Metric("iod_fake", "IOD, virtual", "neither", 0, INF, "OD·px", "tile", "dab", "Sum of the DAB index."),
    Metric("iod_real", "IOD, real", "neither", 0, INF, "OD·px", "tile", "dab", "Sum of the DAB index."),
    Metric("iod_pos_fake", "IOD⁺, virtual", "neither", 0, INF, "OD·px", "tile", "dab", "The same over positive px."),
    Metric("iod_pos_real", "IOD⁺, real", "neither", 0, INF, "OD·px", "tile", "dab", "The same over positive px."),
    Metric(
        "iod_rel_err",
        "IOD relative error",
        "neither",
        -1,
        INF,
        "",
        "set",
        "dab",
        "Relative error of the summed DAB index of the whole set; 0 is best.",
    ),
    Metric(
        "iod_pearson", "IOD Pearson", "higher", -1, 1, "", "set", "dab", "Correlation over tiles; forgives a scale."
    ),
    Metric("iod_spearman", "IOD Spearman", "higher", -1, 1, "", "set", "dab", "Rank correlation over tiles."),
    Metric(
        "iod_ccc",
        "IOD concordance",
        "higher",
        -1,
        1,
        "",
        "set",
        "dab",
        "Lin's concordance of the summed DAB index over tiles: amount of stain, blind to place within a tile.",
    ),
    Metric("iod_ccc_case", "IOD concordance, cases", "higher", -1, 1, "", "set", "dab", "The same over cases."),
    Metric(
        "hscore_ccc_case",
        "H-score concordance, cases",
        "higher",
        -1,
        1,
        "",
        "set",
        "dab",
        "Lin's concordance of the cases' mean pixel H-scores.",
    ),
    Metric(
        "r_content",
        "Content correlation",
        "higher",
        -1,
        1,
        "",
        "set",
        "structure",
        "Pearson of haematoxylin in 64-px windows, H&E against virtual; our reading, not a published number.",
    ),
    Metric(
        "r_path",
        "Stain correlation",
        "higher",
        -1,
        1,
        "",
        "set",
        "dab",
        "Pearson of DAB in 64-px windows, real against virtual; our reading, not a published number.",
    ),
    Metric("r_avg", "Mean correlation", "higher", -1, 1, "", "set", "dab", "Mean of the two."),
    Metric(
        "fd_effnetlite0",
        "Fréchet distance*",
        "lower",
        0,
        INF,
        "",
        "set",
        "stand-in features",
        "Fréchet distance of EfficientNet-Lite0 features; not FID.",
        weights="standin",
    ),
    Metric(
        "kd_effnetlite0",
        "Kernel distance*",
        "lower",
        -INF,
        INF,
        "",
        "set",
        "stand-in features",
        "Unbiased kernel distance of EfficientNet-Lite0 features over all tiles; not KID.",
        weights="standin",
    ),
    Metric(
        "pd_effnetlite0",
        "Perceptual distance*",
        "lower",
        0,
        INF,
        "",
        "tile",
        "stand-in features",
        "Unweighted distance of EfficientNet-Lite0 features; not LPIPS.",
        weights="standin",
    ),
    Metric(
        "phv_effnetlite0",
        "Hash distance*",
        "lower",
        0,
        1,
        "",
        "tile",
        "stand-in features",
        "Share of EfficientNet-Lite0 channels whose mean differs; not PHV.",
        weights="standin",
    ),
    Metric(
        "fid",
        "FID",
        "lower",
        0,
        INF,
        "",
        "set",
        "published features",
        "Fréchet inception distance; antialiased resize to 299 px.",
        weights="fid-inception",
    ),
    Metric(
        "kid_full",
        "KID",
        "lower",
        -INF,
        INF,
        "",
        "set",
        "published features",
        "Kernel inception distance over all tiles.",
        weights="fid-inception",
    ),
    Metric(
        "lpips_alex",
        "LPIPS (AlexNet)",
        "lower",
        0,
        INF,
        "",
        "tile",
        "published features",
        "Learned perceptual distance, release 0.1.",
        weights="alexnet",
    ),
    Metric(
        "lpips_vgg",
        "LPIPS (VGG-16)",
        "lower",
        0,
        INF,
        "",
        "tile",
        "published features",
        "Learned perceptual distance, release 0.1.",
        weights="vgg16",
    ),
    Metric(
        "phv",
        "PHV",
        "lower",
        0,
        1,
        "",
        "tile",
        "published features",
        "Perceptual hash value of ResNet-50, threshold 0.01, mean of four layers.",
        weights="resnet50",
    ),
)

METRICS = {metric.name: metric for metric in _ALL}


def of_level(level: Level) -> list[Metric]:
    """The metrics that give one value per tile, case or set, in the table's order."""
    return [metric for metric in _ALL if metric.level == level]


def check_primary(names: Iterable[str]) -> None:
    """Whether the primary metrics are among the metrics.

    Raises:
        ConfigError: With those that are not.
    """
    if unknown := [name for name in names if name not in METRICS]:
        raise ConfigError(f"evaluation.primary: no metric {', '.join(unknown)}; there are {', '.join(METRICS)}")
