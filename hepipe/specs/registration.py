"""The configuration's section `registration`: a chain of steps, what each of them takes, and the limits of the verdict.

Light like `config.py`, which the Snakefile imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from hepipe.specs.base import Spec, merged

Section = Literal["restained", "consecutive"]
Step = Literal["search", "affine", "elastic", "refine", "deeperhistreg", "simpleitk", "landmarks", "identity"]


class ChainsSpec(Spec):
    """Steps by kind of section, each starting from the one before; a plain list stands for both kinds."""

    restained: tuple[Step, ...] = Field(("search", "affine", "elastic", "refine"), min_length=1)
    consecutive: tuple[Step, ...] = Field(
        ("search", "affine", "elastic"),
        min_length=1,
        description="Without `refine`: on a real pair of next sections its windows made the error larger.",
    )

    @model_validator(mode="before")
    @classmethod
    def _list_for_both(cls, values: Any) -> Any:
        return {"restained": values, "consecutive": values} if isinstance(values, (list, tuple)) else values


class SearchSpec(Spec):
    """The start over all rotations."""

    flips: bool = Field(True, description="Search mirrored starts too.")
    rotation_step_deg: float = Field(5.0, gt=0, le=45)
    scale_range: tuple[float, float] = Field(
        (0.6, 1.6), description="Sizes tried, IHC px per H&E px, where an mpp is unknown; else the mpp fix it."
    )
    matcher: Literal["none", "aliked"] = Field(
        "none", description="aliked: further starts from a learned matcher; needs weights of the role `aliked`."
    )


class ElasticSpec(Spec):
    """The spline field of the overview."""

    smoothness: float = Field(4.0, ge=0, description="Weight of the field's mean squared slope.")


class RefineSpec(Spec):
    """Residual shifts of windows at high resolution, on what both stains share."""

    mpp: float = Field(0.5, gt=0, description="Finest resolution looked at, µm per px; 2 is the fast mode.")


class DeeperHistRegSpec(Spec):
    """DeeperHistReg in its own process: a preset of the package, or the three keys levels, iterations, alpha."""

    preset: str = Field("", description="A preset of the package, as default_nonrigid_fast; empty: the keys below.")
    initial: bool = Field(False, description="Run the preset's initial alignment too, in place of what came before.")
    overview_px: int | None = Field(None, ge=128, description="Its own size of the pictures; empty: `overview_px`.")
    parameters: Mapping[Literal["initial_registration_params", "nonrigid_registration_params"], Mapping[str, Any]] = (
        Field({}, description="Further parameters of the package, over the preset's.")
    )
    device: Literal["cpu", "cuda"] = "cpu"
    levels: int = Field(5, ge=1, le=10, description="Pyramid levels, without a preset.")
    iterations: int = Field(30, ge=1, description="Iterations per level, without a preset.")
    alpha: float = Field(1.5, ge=0, description="Weight of the displacement's smoothness, without a preset.")
    timeout_s: float = Field(3600.0, gt=0, description="Its process is ended after this, seconds.")

    @model_validator(mode="after")
    def _initial_has_a_preset(self) -> DeeperHistRegSpec:
        if self.initial and not self.preset:
            raise ValueError(
                "initial is true without a preset, which says how to align: take preset default_initial_nonrigid_fast"
            )
        return self


class SimpleItkSpec(Spec):
    """SimpleITK's affine by mutual information, and a deformable step."""

    deformable: Literal["bspline", "diffeomorphic", "none"] = Field(
        "bspline",
        description="bspline by mutual information, diffeomorphic by demons on structure, or the affine alone.",
    )
    iterations: int = Field(30, ge=1, description="Per resolution.")


class LandmarksSpec(Spec):
    """What is fitted to landmarks."""

    kind: Literal["auto", "similarity", "affine", "spline"] = Field(
        "auto", description="auto: similarity below 6 points, affine below 15, else thin-plate spline."
    )
    smoothing: float = Field(1.0, ge=0, description="Of the spline; 0 passes through every point, placed well or not.")


class GateSpec(Spec):
    """Limits of the verdict for one kind of section; these defaults are those of the same section stained again."""

    min_similarity: float = Field(0.15, description="Below this score the two slides do not belong together.")
    review_similarity: float = Field(0.2, description="Below this score a person should look at the pair.")
    review_stiff: float = Field(0.14, description="The same for the score before the deformable steps.")
    min_stiff_lead: float = Field(
        0.08, description="Least lead of inner structure in place over places aside, before the deformable steps."
    )
    review_stiff_lead: float = Field(0.12, description="Below this lead a person should look at the pair.")
    min_tissue_dice: float = Field(0.4, ge=0, le=1, description="Least overlap of both tissue masks after warping.")
    scale_tolerance: float = Field(0.02, gt=0, description="Size against what the mpp say; more: an mpp is suspect.")
    max_fold_frac: float = Field(0.001, ge=0, le=1, description="More of the tissue folded: a person should look.")
    min_kept_frac: float = Field(0.25, ge=0, le=1, description="Least share of the refinement's windows that agree.")
    needs_refinement: bool = Field(
        True, description="A person should look where the chain's refinement was dropped or ended early."
    )
    max_p50_um: float = Field(1.5, gt=0, description="Median error of landmarks or windows; twice it fails landmarks.")
    max_p90_um: float = Field(5.0, gt=0, description="The same for their 90th percentile.")


class ConsecutiveGateSpec(GateSpec):
    """The defaults of the next section, which shrinks otherwise and shares structure but no nuclei.

    Seven true pairs, four of them faint sections of lung, reached a similarity of 0.159 and a lead of 0.045 or more; of
    48 pairs of strangers those most alike 0.130 and 0.052, and the latter with a similarity of at most 0.119. Two drawn
    strangers met later led by 0.061 at a similarity of 0.105: neither limit would do alone.
    """

    min_similarity: float = Field(0.13, description="As above.")
    review_similarity: float = Field(0.15, description="As above.")
    review_stiff: float = Field(0.05, description="As above, before the deformable steps.")
    min_stiff_lead: float = Field(0.03, description="As above.")
    review_stiff_lead: float = Field(0.042, description="As above.")
    scale_tolerance: float = Field(0.08, gt=0, description="As above.")
    min_kept_frac: float = Field(0.1, ge=0, le=1, description="As above.")
    needs_refinement: bool = Field(False, description="As above: the elastic step stands without it.")
    max_p50_um: float = Field(10.0, gt=0, description="As above.")
    max_p90_um: float = Field(25.0, gt=0, description="As above.")


class GatesSpec(Spec):
    """Limits by kind of section: what is near for the next section is far for the same one."""

    restained: GateSpec = GateSpec()
    consecutive: ConsecutiveGateSpec = ConsecutiveGateSpec()


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "her2match": {
        "chain": ["deeperhistreg"],
        "deeperhistreg": {"preset": "default_initial_nonrigid_high_resolution", "initial": True, "overview_px": 8192},
    },
}
"""Chains by name. her2match: Klöckner et al. 2025, DeeperHistReg's high-resolution non-rigid pipeline."""


class RegistrationSpec(Spec):
    """How the IHC slide is brought onto the H&E slide."""

    revision: Literal[2] = 2
    preset: Literal["", "her2match"] = Field("", description="A published chain; keys given beside it win.")
    chain: ChainsSpec = ChainsSpec()
    overview_px: int = Field(1024, ge=128, description="Longer side of the pictures that are registered, px.")
    threads: int = Field(1, ge=1, description="Threads of every numeric library: part of the result, so named here.")
    search: SearchSpec = SearchSpec()
    elastic: ElasticSpec = ElasticSpec()
    refine: RefineSpec = RefineSpec()
    deeperhistreg: DeeperHistRegSpec = DeeperHistRegSpec()
    simpleitk: SimpleItkSpec = SimpleItkSpec()
    landmarks: LandmarksSpec = LandmarksSpec()
    gate: GatesSpec = GatesSpec()

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and values.get("preset") in PRESETS:
            return merged(PRESETS[values["preset"]], values)
        return values
