"""The section `quality`: limits on what is measured of each tile, and classes of alignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from hepipe.specs.base import Spec
from hepipe.specs.learned import LearnedSpec


class Limit(Spec):
    """A filter: a tile is dropped when the measurement lies outside."""

    min: float | None = None
    max: float | None = None

    def passes(self, value: float) -> bool:
        """Whether a measured value is inside; an undefined one (nan) is."""
        return not ((self.min is not None and value < self.min) or (self.max is not None and value > self.max))


RESTAINED_LIMITS: Mapping[str, Limit] = {
    "outside_frac_he": Limit(max=0.05),
    "outside_frac_ihc": Limit(max=0.05),
    "unscanned_he": Limit(max=0.05),
    "unscanned_ihc": Limit(max=0.05),
    "white_frac_he": Limit(max=0.85),
    "white_frac_ihc": Limit(max=0.85),
    "lost_frac_he": Limit(max=0.01),
    "lost_frac_ihc": Limit(max=0.01),
    "pen_blue_he": Limit(max=0.005),
    "pen_blue_ihc": Limit(max=0.005),
    "pen_green_he": Limit(max=0.005),
    "pen_green_ihc": Limit(max=0.005),
    "pen_red_he": Limit(max=0.005),
    "pen_red_ihc": Limit(max=0.005),
    "pen_black_he": Limit(max=0.005),
    "pen_black_ihc": Limit(max=0.005),
    "edge_um_he": Limit(max=45),
    "edge_um_ihc": Limit(max=45),
    "bubble_um_he": Limit(max=45),
    "bubble_um_ihc": Limit(max=45),
    "crease_he": Limit(max=0.16),
    "crease_ihc": Limit(max=0.17),
    "shade_he": Limit(max=0.055),
    "shade_ihc": Limit(max=0.2),
    "veil_he": Limit(max=0.06),
    "veil_ihc": Limit(max=0.065),
    "overstain_he": Limit(max=0.5),
    "overstain_ihc": Limit(max=0.3),
    "black_frac_he": Limit(max=0.02),
    "black_frac_ihc": Limit(max=0.02),
    "burnt_frac_he": Limit(max=0.3),
    "burnt_frac_ihc": Limit(max=0.3),
    "blur_he": Limit(max=0.6),
    "blur_ihc": Limit(max=0.53),
    "doubling_he": Limit(max=0.1),
    "doubling_ihc": Limit(max=0.085),
    "residual_eosin_od": Limit(max=0.08),
}
"""Of the same section stained again; units as in `hepipe/quality/`, what each was set on in docs/quality.md: clean
tiles of drawn cohorts of seeds 2 and 3, of which fewer than 1 % fail each, and sound public H&E and IHC pictures, of
which none does; for tiles at about 0.25 to 1 µm per px."""

CONSECUTIVE_LIMITS: Mapping[str, Limit] = {
    **{name: limit for name, limit in RESTAINED_LIMITS.items() if name != "residual_eosin_od"},
    "lost_frac_he": Limit(max=0.02),
    "lost_frac_ihc": Limit(max=0.04),
    "crease_he": Limit(max=0.16),
    "crease_ihc": Limit(max=0.17),
    "blur_ihc": Limit(max=0.56),
    "doubling_ihc": Limit(max=0.075),
}
"""Of the next section of the block: another limit where its drawn cohort (seed 2) or the pairs of BCI asked for it."""


class LimitsSpec(Spec):
    """Measurement to its limit by kind of section, never pooled: sections that differ anyway differ more."""

    restained: Mapping[str, Limit] = Field(
        RESTAINED_LIMITS, description="The same section stained again; those given stand in place of all defaults."
    )
    consecutive: Mapping[str, Limit] = Field(
        CONSECUTIVE_LIMITS, description="The next section; those given stand in place of all defaults."
    )


Alignment = Literal["aligned", "weak", "misaligned", "beyond"]


class AlignmentSpec(Spec):
    """What a tile's class of alignment is, for one kind of section; these defaults: the same section stained again.

    aligned: within every limit. beyond: no partner within the search range. misaligned: further off than `far_um`, or
    less alike than `unlike_peak`. weak: the rest, and what cannot be measured.
    """

    max_shift_um: float = Field(
        0.8, gt=0, description="Largest shift of an aligned tile, µm: 99 % of drawn tissue off by over 1 µm has more."
    )
    far_um: float = Field(2.0, gt=0, description="A larger shift: misaligned, µm.")
    min_peak: float = Field(0.3, description="Least correlation of an aligned tile, of haematoxylin in windows.")
    unlike_peak: float = Field(0.1, description="Less correlation: misaligned.")
    min_matched_frac: float = Field(0.5, ge=0, le=1, description="Least share of windows with a partner when aligned.")
    beyond_matched_frac: float = Field(0.1, ge=0, le=1, description="A smaller share: beyond the search range.")
    max_untrusted_frac: float = Field(0.2, ge=0, le=1, description="Most of an aligned tile that no window supports.")


class ConsecutiveAlignmentSpec(AlignmentSpec):
    """The defaults of the next section: shifts and correlation are of low-passed total density."""

    max_shift_um: float = Field(10.0, gt=0, description="As above.")
    far_um: float = Field(20.0, gt=0, description="As above.")
    min_peak: float = Field(0.5, description="As above, of the whole tile's low-passed density.")
    unlike_peak: float = Field(0.05, description="As above.")


class AlignmentsSpec(Spec):
    """Classes of alignment by kind of section, never pooled: what is near for the next section is far for the same."""

    drop: tuple[Alignment, ...] = Field(("misaligned", "beyond"), description="Tiles of these classes are dropped.")
    restained: AlignmentSpec = AlignmentSpec()
    consecutive: ConsecutiveAlignmentSpec = ConsecutiveAlignmentSpec()


class QualitySpec(Spec):
    """Which tiles are dropped: limits on the raw measurements of the tile table, and classes of alignment."""

    revision: Literal[3] = 3
    limits: LimitsSpec = Field(LimitsSpec(), description="By kind of section. Never changes the tiles.")
    alignment: AlignmentsSpec = AlignmentsSpec()
    learned: LearnedSpec | None = Field(None, description="A segmentation network of the user's, beside the filters.")
    alarm_dropped_frac: float = Field(0.8, gt=0, le=1, description="More dropped than this: the case needs review.")
    alarm_filter_frac: float = Field(
        0.5, gt=0, le=1, description="More that fail one filter: the case needs review, which names the filter."
    )

    @field_validator("limits", mode="before")
    @classmethod
    def _by_section(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            names = [str(name) for name in given if name not in ("restained", "consecutive")]
            if names or not given:
                found = ", ".join(names) or "nothing"
                raise ValueError(
                    f"limits stand by kind of section, {found} found; write {{restained: {{…}}, consecutive: {{…}}}}, "
                    "where {} drops nothing and a kind left out keeps its defaults"
                )
        return given

    def limits_of(self, section: str) -> Mapping[str, Limit]:
        """Every limit on tiles of a kind of section; those of `learned.drop` give way to one of the same name."""
        own: Mapping[str, Limit] = getattr(self.limits, section)
        if self.learned is None:
            return own
        learned = {
            self.learned.measurement(name, stain): Limit(max=share)
            for name, share in self.learned.drop.items()
            for stain in self.learned.stains
        }
        return {**learned, **own}
