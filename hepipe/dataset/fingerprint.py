"""One digest that says which data a model saw, and what it is made of: two that differ can be told apart without data.

The parts of a fingerprint, each with its own digest and each by case:

    slides      content of both slides: level 0's tiles as they are stored (`slides/digests.py`)
    transforms  the numbers of the stored registration, whatever found them
    readers     who decodes each slide, and into which colours
    sections    the config section that each stage ran with
    stains      stain vectors and white points, which the DAB masks follow from
    tiles       which tiles are in, and their pixels
    labels      scores, markers and kinds of section
    curation    decisions of people
    splits      the config section, and which tile is in which split or fold
    versions    of hepipe that each stage ran with

Paths, machines, dates, the order of rows and the number of workers are in none of them. Neither are the versions of
the libraries that decode: a version that changes pixels changes the digests of the tiles, and one that does not is no
reason for another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Field

from hepipe import __version__
from hepipe.specs.base import Spec
from hepipe.stores.provenance import digest

if TYPE_CHECKING:
    from hepipe.dataset.cases import CaseTiles

Part = Literal[
    "slides",
    "transforms",
    "readers",
    "sections",
    "stains",
    "tiles",
    "labels",
    "curation",
    "splits",
    "versions",
]
PARTS: tuple[Part, ...] = get_args(Part)
OF_CASES: tuple[Part, ...] = tuple(part for part in PARTS if part != "curation")
"""Those to which each case brings its own."""
TILE_COLUMNS = ("he_sha256", "ihc_sha256", "place", "region")
LABEL_COLUMNS = ("her2_score", "score_level", "marker", "section")
SPLIT_COLUMNS = ("split", "fold")
CaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
"""As in a slide sheet: the name of a file too, and a card may be a stranger's."""


class CaseParts(Spec):
    """What one case, or an imported set, brings to the fingerprint.

    Each is a digest, or a mapping of them by stain or by stage.
    """

    slides: Mapping[str, str] = Field({}, description="Stain to the content of its slide.")
    transforms: str = ""
    readers: Mapping[str, str] = Field({}, description="Stain to who decodes its slide, and into which colours.")
    sections: Mapping[str, str] = Field({}, description="Stage to the digest of the section that it ran with.")
    stains: str = ""
    tiles: str
    labels: str
    splits: str
    versions: Mapping[str, str] = Field({}, description="Stage to the version of hepipe that it ran with.")
    n_tiles: int
    decoders: Mapping[str, str] = Field({}, description="Stain to the library that decoded its tiles: in no part.")


class Fingerprint(Spec):
    """What a fingerprint is made of."""

    parts: Mapping[Part, str]
    cases: Mapping[CaseName, CaseParts] = Field(description="Those of which a tile is in the index, by id.")
    sections: Mapping[str, Mapping[str, Any]] = Field(description="Digest to the config section.")
    splits: str = Field(description="Digest of the section `splits`.")
    curation: Mapping[str, Any] = Field({}, description="Digest of people's decisions and how they are followed.")
    version: str = Field(__version__, description="Of hepipe, when the data set was assembled.")

    @property
    def digest(self) -> str:
        """The fingerprint."""
        return digest(dict(self.parts))

    def recomputed(self) -> Mapping[Part, str]:
        """The digests of the parts from what stands beside them."""
        return _parts(self.cases, splits=self.splits, curation=self.curation, version=self.version)

    def section(self, case_id: str, stage: str) -> Mapping[str, Any]:
        """What a stage ran with for a case; nothing where that is not known."""
        return self.sections.get(self.cases[case_id].sections.get(stage, ""), {})


def fingerprint(
    rows: Sequence[Mapping[str, Any]],
    cases: Sequence[CaseTiles],
    *,
    splits: Mapping[str, Any],
    curation: Mapping[str, Any] = MappingProxyType({}),
    version: str = __version__,
) -> Fingerprint:
    """The fingerprint of a data set, the same whatever the order of rows and cases.

    Args:
        rows: Of the index.
        cases: What the stages left of each; those without a row bring nothing.
        splits: The section that patients were divided with.
        curation: Digest of people's decisions and how they are followed; empty where nobody decided anything.
        version: Of hepipe that assembles.
    """
    kept: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        kept.setdefault(PurePosixPath(row["store"]).stem, []).append(row)
    sections = {digest(splits): splits}
    brought = {}
    for case in cases:
        if case.case_id not in kept:
            continue
        own = {stage: digest(section) for stage, section in case.specs.items()}
        sections |= {own[stage]: section for stage, section in case.specs.items()}
        brought[case.case_id] = CaseParts(
            slides=case.slides,
            transforms=case.transform,
            readers=case.decoded,
            sections=own,
            stains=case.stains,
            decoders=case.decoders,
            versions=case.versions,
            **of_rows(kept[case.case_id]),
        )
    found = dict(sorted(brought.items()))
    return Fingerprint(
        parts=_parts(found, splits=digest(splits), curation=dict(curation), version=version),
        cases=found,
        sections=dict(sorted(sections.items())),
        splits=digest(splits),
        curation=dict(curation),
        version=version,
    )


def of_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the rows of one case bring: the fields `tiles`, `labels`, `splits` and `n_tiles` of `CaseParts`.

    Labels and splits that all tiles of a case share stand without their ids: a tile less is no other label.
    """

    # Imports leave out what they do not know; a column that is not there is as one without a value.
    def by_tile(columns: Sequence[str]) -> str:
        found = ([row["tile_id"], *(row.get(name) for name in columns)] for row in rows)
        return digest(sorted(found, key=lambda values: str(values[0])))

    def shared(columns: Sequence[str]) -> str:
        kinds = {tuple(row.get(name) for name in columns) for row in rows}
        return digest(kinds.pop()) if len(kinds) == 1 else by_tile(columns)

    return {
        "tiles": by_tile(TILE_COLUMNS),
        "labels": shared(LABEL_COLUMNS),
        "splits": shared(SPLIT_COLUMNS),
        "n_tiles": len(rows),
    }


def mixed_versions(made: Fingerprint) -> list[str]:
    """A warning for each stage that several versions of hepipe ran."""
    warnings = []
    stages = sorted({stage for case in made.cases.values() for stage in case.versions})
    for stage in stages:
        by_version: dict[str, list[str]] = {}
        for case_id, case in made.cases.items():
            if stage in case.versions:
                by_version.setdefault(case.versions[stage], []).append(case_id)
        if len(by_version) > 1:
            shares = "; ".join(f"{version} in {_named(ids)}" for version, ids in sorted(by_version.items()))
            warnings.append(f"{stage}: made by several versions of hepipe: {shares}")
    return warnings


def _named(ids: Sequence[str], shown: int = 5) -> str:
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(ids[:shown]) + more


def _parts(
    cases: Mapping[str, CaseParts], *, splits: str, curation: Mapping[str, Any], version: str
) -> dict[Part, str]:
    beside: Mapping[Part, Any] = {"splits": splits, "versions": version}
    parts: dict[Part, str] = {}
    for part in PARTS:
        if part == "curation":
            parts[part] = digest(dict(curation))
        else:
            by_case = {case_id: case.model_dump(mode="json")[part] for case_id, case in cases.items()}
            parts[part] = digest([by_case, beside.get(part)])
    return parts
