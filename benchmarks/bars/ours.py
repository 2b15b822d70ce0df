"""`hepipe register` on a pair, in a process of its own, and its errors where the truth is known."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from bars.child import Ran, command

from hepipe.errors import StoreError
from hepipe.geometry import Transform
from hepipe.registration.transform import fold_frac
from hepipe.specs.registration import RegistrationSpec
from hepipe.stores.arrays import Registered, read_registered

FAR_UM = 1.0
"""A point that is off by this much is one that the bar wants flagged."""
LOST = 2
"""On a case's map of tissue: on the H&E slide alone."""


@dataclass(frozen=True)
class Found:
    """A registration and what it cost; `registered` is None when the command failed or left what cannot be read."""

    registered: Registered | None
    ran: Ran
    problem: str = ""

    @property
    def transform(self) -> Transform | None:
        """Also what a failed case proposed: its error is measured all the same, and its verdict printed."""
        if self.registered is None:
            return None
        return self.registered.ihc_from_he or self.registered.proposed

    @property
    def says(self) -> str:
        """The verdict and the cost, for the table."""
        if self.registered is None:
            return f"exit {self.ran.status}: {self.problem or self.ran.last[:160]}"
        state = self.registered.provenance.status.state
        return f"{state}, {self.ran.cpu_s:.1f} CPU s, {self.ran.peak_mb:.0f} MB"


def register(
    he: Path, ihc: Path, out: Path, spec: RegistrationSpec, *, mpp: str = "", section: str = "restained"
) -> Found:
    """Run the command.

    Args:
        he: The H&E slide.
        ihc: The IHC slide.
        out: The transform to be written.
        spec: Its settings.
        mpp: Of both slides; a number, `unknown`, or empty for the files' own.
        section: The same section or the next.
    """
    given = ["--mpp-he", mpp, "--mpp-ihc", mpp] if mpp else []
    settings = json.dumps(spec.model_dump(mode="json", exclude_defaults=True))
    ran = command(
        *("register", "--he", he, "--ihc", ihc, "--transform", out, "--section", section, "--spec", settings), *given
    )
    if ran.status != 0:
        return Found(None, ran)
    try:
        return Found(read_registered(out), ran)
    except StoreError as error:
        return Found(None, ran, str(error).replace(f"{out}: ", ""))


@dataclass(frozen=True)
class Case:
    """A folder that `benchmarks/cases.py` made."""

    folder: Path
    facts: dict

    @classmethod
    def at(cls, folder: Path) -> Case:
        """Read its facts."""
        return cls(folder, json.loads((folder / "facts.json").read_text()))

    @property
    def kind(self) -> str:
        """restained, consecutive, sparse or real."""
        return self.facts["kind"]

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.kind} {max(self.facts['he_px'])} px, seed {self.facts['seed']}"

    @property
    def section(self) -> Literal["restained", "consecutive"]:
        """A consecutive section is declared as such, as in a slide sheet."""
        return "consecutive" if self.kind == "consecutive" else "restained"

    @property
    def tissue_mm2(self) -> float:
        """Of the H&E slide."""
        return self.facts["tissue_mm2"]

    def truth(self) -> Transform:
        """The transform that made the IHC slide."""
        part = zarr.open_group(self.folder / "truth.zarr", mode="r")["ihc_from_he"]
        return Transform(
            affine=np.array(part.attrs["affine"], float),
            fixed_mpp=float(part.attrs["fixed_mpp"]),
            moving_mpp=float(part.attrs["moving_mpp"]),
            field_um=np.asarray(part["field_um"][:]) if "field_um" in part else None,
            grid_um=float(part.attrs["grid_um"]),
        )

    def points(self) -> np.ndarray:
        """H&E tissue, lost tissue included, whose true partner is on the IHC slide; px0, on the grid of its map."""
        tissue, px0 = self._tissue()
        rows, columns = np.nonzero(tissue > 0)
        points = (np.stack([columns, rows], axis=1) + 0.5) * px0
        aim = self.truth()(points)
        return points[((aim >= 0) & (aim <= self.facts["ihc_px"])).all(axis=1)]

    def lost(self, points: np.ndarray) -> np.ndarray:
        """Which of `points` are tissue that the IHC slide lost: glass lies there, whatever the registration says."""
        tissue, px0 = self._tissue()
        column, row = np.floor(points / px0).astype(int).T
        return np.asarray(tissue[row, column] == LOST)

    def _tissue(self) -> tuple[np.ndarray, float]:
        """The map of the H&E slide's tissue and the side of its px in px0."""
        group = zarr.open_group(self.folder / "truth.zarr", mode="r")
        return np.asarray(group["tissue"][:]), float(group.attrs["tissue_mpp"]) / self.facts["mpp"]


@dataclass(frozen=True)
class Errors:
    """Of a case, µm on the IHC slide over the H&E's tissue.

    Attributes:
        median: Of all points.
        p90: 90th percentile.
        below: Share below 1 µm.
        flagged: Share of those not below 1 µm that `trust` gives up; 1 when there is none, nan without `trust`.
        trusted: Share of points that `trust` supports; nan without.
        folds: Share of the field that is folded.
    """

    median: float
    p90: float
    below: float
    flagged: float
    trusted: float
    folds: float

    def __str__(self) -> str:
        """For the table."""
        flags = (
            ""
            if np.isnan(self.trusted)
            else f", {self.flagged:.0%} of the rest not trusted, {self.trusted:.0%} trusted"
        )
        folds = "no fold" if self.folds == 0 else f"{self.folds:.2%} folded"
        return f"median {self.median:.3f}, p90 {self.p90:.3f} µm, {self.below:.1%} < 1 µm{flags}, {folds}"


def point_errors(case: Case, transform: Transform) -> tuple[np.ndarray, np.ndarray]:
    """A case's points, px0, and how far from the truth each of them goes, µm on the IHC slide."""
    points = case.points()
    return points, np.linalg.norm(transform(points) - case.truth()(points), axis=1) * transform.moving_mpp


def errors_of(case: Case, found: Found) -> Errors | None:
    """How far the registration is from the truth."""
    transform = found.transform
    if transform is None or found.registered is None:
        return None
    points, error = point_errors(case, transform)
    trust = found.registered.evidence.get("trust")
    flagged = trusted = np.nan
    if trust is not None:
        at = np.floor(points * (transform.fixed_mpp / transform.grid_um)).astype(int)
        known = trust[at[:, 1].clip(0, trust.shape[0] - 1), at[:, 0].clip(0, trust.shape[1] - 1)] > 0
        far = error >= FAR_UM
        flagged = float((~known[far]).mean()) if far.any() else 1.0
        trusted = float(known.mean())
    return Errors(
        float(np.median(error)),
        float(np.percentile(error, 90)),
        float((error < FAR_UM).mean()),
        flagged,
        trusted,
        fold_frac(transform),
    )
