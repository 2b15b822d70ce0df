"""What a synthetic case will be, decided before anything is drawn; every number follows from (seed, number)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from hepipe.errors import ConfigError
from hepipe.sheet import SCORES, Score
from hepipe.specs.synth import SYNTH_MPP, SynthSpec
from hepipe.synth.noise import generator

Kind = Literal["pen", "fold", "blur", "bubble", "edge", "tear", "shade", "doubling"]
KINDS: tuple[Kind, ...] = ("pen", "fold", "blur", "bubble", "edge", "tear", "shade", "doubling")
LABELS: dict[Kind, int] = {kind: label for label, kind in enumerate(KINDS, start=1)}

MPP = SYNTH_MPP


@dataclass(frozen=True)
class Planted:
    """An artifact to draw: what, how bad (0 barely visible, 1 gross) and on which slide."""

    kind: Kind
    severity: float
    stain: Literal["he", "ihc"]


@dataclass(frozen=True)
class Biology:
    """What the tissue is like.

    Attributes:
        score: HER2 score of the slide.
        grade: Where the H&E lies between looking like a 0 (0.0) and a 3+ (3.0); its scatter is the overlap of scores.
        pieces: Separate pieces of tissue.
        in_situ: Whether ducts filled with tumour cells lie among the rest.
        tumour: Share of tumour in the tissue, roughly.
        strength_od: Optical density of DAB on a stained membrane.
        positive: Share of tumour cells that stain.
        completeness: Share of a stained cell's outline that shows, on average.
    """

    score: Score
    grade: float
    pieces: int
    in_situ: bool
    tumour: float
    strength_od: float
    positive: float
    completeness: float


@dataclass(frozen=True)
class Look:
    """How one slide was stained and scanned.

    Attributes:
        vectors: Optical density of each stain for red, green, blue; unit length. H&E: haematoxylin, eosin;
            IHC: haematoxylin, DAB.
        strengths: Amount of each stain relative to a usual slide.
        thickness: Variation of the section's thickness, standard deviation of a factor.
        white: Grey value of empty glass for red, green, blue.
        colors: The scanner's colour matrix.
        gamma: Its tone curve.
        blur_px: Its point spread, standard deviation in px.
        noise: Standard deviation of its noise, grey values.
        quality: JPEG quality, 1 to 100.
    """

    vectors: Float[np.ndarray, "2 3"]
    strengths: tuple[float, float]
    thickness: float
    white: tuple[float, float, float]
    colors: Float[np.ndarray, "3 3"]
    gamma: float
    blur_px: float
    noise: float
    quality: int


@dataclass(frozen=True)
class Placement:
    """How the IHC section came to lie: flip first, then turn, then scale; then the warp.

    Attributes:
        degrees: Turn, positive turns x towards y.
        flip: Whether it is mirrored.
        scale: Its size relative to the H&E section.
        shear: Departure from a similarity.
        warp_um: Largest displacement of the smooth warp.
        swelling: Largest local relative growth.
    """

    degrees: float
    flip: bool
    scale: float
    shear: float
    warp_um: float
    swelling: float


@dataclass(frozen=True)
class Plan:
    """A whole case; `key` seeds every part of its drawing."""

    key: tuple[int, str, int]
    side_px: int
    biology: Biology
    he: Look
    ihc: Look
    placement: Placement
    artifacts: tuple[Planted, ...]
    control: bool
    lost: float
    shift_um: float

    def rng(self, part: str) -> np.random.Generator:
        """The generator of a part of the drawing."""
        return generator(*self.key, part)


# OD on a stained membrane, share of stained cells, share of the outline that shows: after the ASCO/CAP wording
# (0: none or faint in at most 10 %; 1+: faint, incomplete; 2+: weak to moderate, complete; 3+: intense, complete).
_MEMBRANES: dict[Score, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "0": ((0.03, 0.07), (0.0, 0.08), (0.2, 0.4)),
    "1+": ((0.2, 0.3), (0.35, 0.6), (0.35, 0.55)),
    "2+": ((0.36, 0.58), (0.6, 0.85), (0.75, 0.95)),
    "3+": ((0.95, 1.4), (0.88, 0.99), (0.95, 1.0)),
}
GRADE_SCATTER = 0.2
"""Standard deviation of a patient's grade about its score; with the local variation in `cells.py` it sets the probe."""


def plan_case(spec: SynthSpec, number: int) -> Plan:
    """The plan of case `number`, 1 for the first; how many there are changes none of them.

    Raises:
        ConfigError: No such case.
    """
    if number < 1:
        raise ConfigError(f"synth: case {number} asked for; the first is 1")
    return _plan(spec, number, "slides", side_px=round(spec.side_um / MPP), artifacts=spec.artifacts)


def plan_pair_patient(spec: SynthSpec, number: int, *, side_px: int) -> Plan:
    """The plan of patient `number` (1 for the first) of the aligned tile pairs: others than those of the slides."""
    return _plan(spec, number, "pairs", side_px=side_px, artifacts=False)


def _plan(spec: SynthSpec, number: int, cohort: str, *, side_px: int, artifacts: bool) -> Plan:
    key = (spec.seed, cohort, number)
    rng = generator(*key, "plan")
    index = number - 1
    rank = index % len(SCORES)
    score: Score = SCORES[rank]
    strength, positive, completeness = (float(rng.uniform(*span)) for span in _MEMBRANES[score])
    return Plan(
        key=key,
        side_px=side_px,
        biology=Biology(
            score=score,
            grade=rank + float(np.clip(rng.normal(0, GRADE_SCATTER), -0.6, 0.6)),
            pieces=2 + int(rng.integers(2)) if index % 5 == 4 else 1,
            in_situ=index % 3 == 1,
            tumour=float(rng.uniform(0.6, 0.88)),
            strength_od=strength,
            positive=positive,
            completeness=completeness,
        ),
        he=_look(rng, "he"),
        ihc=_look(rng, "ihc"),
        placement=_placement(rng, index),
        artifacts=_artifacts(spec.seed, index) if artifacts else (),
        control=cohort == "slides" and index % 5 == 2,
        lost=float(rng.uniform(0.02, 0.05)) if spec.section == "restained" else 0.45,
        shift_um=0.0 if spec.section == "restained" else 1.5,
    )


# Haematoxylin and eosin as they lie in the H&E of breast slides looked at for colour; DAB as in Ruifrok and Johnston,
# Quantification of histochemical staining by color deconvolution, 2001, table 1.
_VECTORS = {
    "he": np.array([[0.60, 0.73, 0.33], [0.10, 0.86, 0.50]]),
    "ihc": np.array([[0.70, 0.60, 0.39], [0.27, 0.57, 0.78]]),
}


def _look(rng: np.random.Generator, stain: Literal["he", "ihc"]) -> Look:
    vectors = np.clip(_VECTORS[stain] + rng.normal(0, 0.025, (2, 3)), 0.03, None)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    colors = np.eye(3) + rng.normal(0, 0.012, (3, 3))
    colors /= colors.sum(axis=1, keepdims=True)
    base = rng.uniform(236, 246) if stain == "he" else rng.uniform(242, 250)
    red, green, blue = base + rng.normal(0, 1.5, 3)
    return Look(
        vectors=vectors,
        strengths=(float(rng.uniform(0.82, 1.2)), float(rng.uniform(0.82, 1.2) if stain == "he" else 1.0)),
        thickness=float(rng.uniform(0.03, 0.1)),
        white=(float(red), float(green), float(blue)),
        colors=colors,
        gamma=float(rng.uniform(0.94, 1.06)),
        blur_px=float(rng.uniform(0.55, 0.85)),
        noise=float(rng.uniform(0.8, 2.0)),
        quality=int(rng.integers(80, 93)),
    )


def _placement(rng: np.random.Generator, index: int) -> Placement:
    start, spread = ((0, 8), (90, 6), (180, 6), (0, 180))[(index + index // 4) % 4]
    return Placement(
        degrees=float(start + rng.uniform(-spread, spread)),
        flip=index % 7 in (3, 5),
        scale=float(rng.uniform(0.98, 1.02)),
        shear=float(rng.uniform(-0.01, 0.01)),
        warp_um=float(rng.uniform(12, 32)),
        swelling=float(rng.uniform(0.01, 0.02)),
    )


def _artifacts(seed: int, index: int) -> tuple[Planted, ...]:
    """Each kind in turn on either stain, severities spread evenly over the cohort; every sixth case is clean."""
    if index % 6 == 5:
        return ()
    start = float(generator(seed, "artifacts").random())
    planted = []
    for place in range(3):
        count = 3 * (index - index // 6) + place
        kind = KINDS[count % len(KINDS)]
        severity = (start + 0.381966 * (count // len(KINDS)) + 0.618034 * (count % len(KINDS))) % 1 * 0.95 + 0.05
        stain: Literal["he", "ihc"] = "he" if (count + count // len(KINDS)) % 2 == 0 else "ihc"
        planted.append(Planted(kind, round(float(severity), 3), stain))
    return tuple(planted)
