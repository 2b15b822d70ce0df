"""Which pieces of tissue of one section lie on the other: control tissue, extra cuts and missing pieces are taken out.

Before the registration outlines alone tell (`match_pieces`), so only what no likely arrangement covers is taken out;
after it the overlap tells (`relabel`). A person's word stands in both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform
from hepipe.registration.arrangement import Arrangement, Overlap, arrangements, outline_likeness
from hepipe.registration.overview import SMOOTH_UM, Pictures, positions
from hepipe.sheet import PieceRole, read_piece_roles
from hepipe.stains.deconvolution import Separator
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix
from hepipe.tissue.otsu import threshold_tissue, white_point
from hepipe.tissue.pieces import group_pieces, spread_pieces

Stain = Literal["he", "ihc"]
STAINS: tuple[Stain, Stain] = ("he", "ihc")

COVERED = 0.25
"""A piece of which at least this share lies on the other section has a partner."""
NEAR_BEST = 0.9
"""Arrangements that score at least this share of the best are likely too. Of four real pieces, one of them missing, the
best wrong arrangement reached 0.70 to 0.89 of the right one's score."""
MIN_FIT, MIN_PAIRED = 0.7, 0.5
"""Before the registration pieces go only when the outlines of the others fit this well, and those are this share of all
tissue. Right arrangements of real pieces fitted with 0.94 to 0.97, those of drawn strangers with 0.14 to 0.99."""
MIN_WHOLE = 0.85
"""Pieces go only when at least this share of one slide's tissue, control tissue aside, has partners: pieces left over
on both slides and unlike are no loss but another specimen or a bad registration, which the score must see."""
LIKE_OUTLINE, LIKE_AREA = 0.7, 0.6
"""Two pieces are alike when their outlines fit this well and their areas differ by no more."""
DAB_OD = 0.25
STRONG_DAB, STRONGER = 0.3, 2.0
"""A control is stained on this share of its px, and this many times the share of the pieces with a partner."""
FAR_FRAC = 0.5
"""Or it lies further off than this share of the diagonal of the box about the pieces with a partner."""
EDGE_FRAC = 0.006
"""Outlines may differ by this share of the longer side before tissue counts as uncovered."""


@dataclass(frozen=True)
class Piece:
    """A piece of tissue on one slide.

    Attributes:
        stain: Which slide.
        number: Its number there, from 1, largest first: that of the label map and of the picture.
        role: `matched`: it has a partner, or may have one; `missing`: on the H&E only; `control`, `extra`: on the IHC
            only.
        partner: Number of the piece of the other slide that it lies on most, if any.
        area_mm2: Its tissue.
        centre_um: Middle (x, y) of its tissue on its own slide.
        dab_frac: Share of its px that DAB stains; None for the H&E.
        by: Who says its role.
        lead: Of the structure in this piece alone under the registration, as `Judge.piece_leads` measures it; None
            where it was not or cannot be told.
    """

    stain: Stain
    number: int
    role: PieceRole
    partner: int | None
    area_mm2: float
    centre_um: tuple[float, float]
    dab_frac: float | None
    by: Literal["found", "person"] = "found"
    lead: float | None = None

    @property
    def name(self) -> str:
        """As a person writes it: `he1`, `ihc3`."""
        return f"{self.stain}{self.number}"


@dataclass(frozen=True)
class Pieces:
    """The pieces of both slides of a case.

    Attributes:
        he: Number of the piece at each px of the H&E picture; 0 is glass and crumbs.
        ihc: The same of the IHC picture.
        table: H&E first, by number.
    """

    he: UInt8[np.ndarray, "h w"]
    ihc: UInt8[np.ndarray, "ih iw"]
    table: tuple[Piece, ...]

    def of(self, stain: Stain) -> list[Piece]:
        """The pieces of one slide, by number."""
        return [piece for piece in self.table if piece.stain == stain]

    def out(self, stain: Stain) -> list[int]:
        """Numbers of the pieces of one slide that registration and stain estimates do not look at."""
        return [piece.number for piece in self.of(stain) if piece.role != "matched"]

    def records(self) -> list[dict[str, Any]]:
        """The table for a store."""
        return [{**vars(piece), "centre_um": list(piece.centre_um)} for piece in self.table]


def read_pieces(
    he: UInt8[np.ndarray, "h w"], ihc: UInt8[np.ndarray, "ih iw"], records: Sequence[Mapping[str, Any]]
) -> Pieces:
    """Pieces as `Pieces.records` and the label maps were stored."""
    table = tuple(Piece(**{**record, "centre_um": tuple(record["centre_um"])}) for record in records)
    return Pieces(he, ihc, table)


def match_pieces(pictures: Pictures, edits: str = "", *, case_id: str = "case") -> Pieces:
    """The pieces of both pictures, and those that clearly have no partner, from their outlines.

    A piece is taken out when no likely arrangement lays a quarter of it on the other section, when the arrangement fits
    the rest well, and when no piece of the other section that is left over is like it (it may just have moved).

    Args:
        pictures: The pair, of one resolution.
        edits: A person's word, as the sheet's column `pieces` holds it; it wins.
        case_id: For errors.

    Raises:
        RegistrationError: The edits name a piece that is not there, or say something else than a role.
    """
    pieces = _found(pictures)
    pieces = _edited(pieces, edits, case_id=case_id)
    he, ihc = (np.where(np.isin(labels, pieces.out(stain)), 0, labels) for stain, labels in _maps(pieces))
    if len(np.unique(he)) <= 2 and len(np.unique(ihc)) <= 2:
        return _partnered(pieces, None)
    likely = _likely(arrangements(he, ihc, free_scale=pictures.free_scale))
    if not likely:
        return _partnered(pieces, None)
    best = likely[0].overlap
    shares: dict[Stain, np.ndarray] = {
        "he": np.max([one.overlap.he_share for one in likely], axis=0),
        "ihc": np.max([one.overlap.ihc_share for one in likely], axis=0),
    }
    fit, paired = _fit(best)
    pieces = _partnered(pieces, best)
    if fit < MIN_FIT or paired < MIN_PAIRED:
        return pieces
    return _with_roles(pieces, best, shares)


def mask_out(pictures: Pictures, pieces: Pieces) -> Pictures:
    """The pictures with every piece that has no partner painted over with the colour of its slide's glass.

    So that each step, whatever it looks at, sees neither the tissue nor a hole, and thresholds are set on the rest.
    """
    fixed, moving = (
        _painted(picture, labels, pieces.out(stain))
        for picture, (stain, labels) in zip((pictures.fixed, pictures.moving), _maps(pieces), strict=True)
    )
    return replace(pictures, fixed=fixed, moving=moving)


def relabel(pieces: Pieces, pictures: Pictures, ihc_from_he: Transform) -> Pieces:
    """Roles by what a registration lays on what; a person's word stays.

    Where neither slide has nearly all of its tissue on the other, all pieces count as matched: the pair is wrong or
    badly registered, which the score must see.

    Args:
        pieces: As matched before.
        pictures: The pictures that the label maps belong to, nothing painted over.
        ihc_from_he: Between the slides.
    """
    small = pictures.small(ihc_from_he)
    overlap = overlap_under(pieces, small)
    shares: dict[Stain, np.ndarray] = {"he": overlap.he_share, "ihc": overlap.ihc_share}
    fresh = replace(
        pieces,
        table=tuple(one if one.by == "person" else replace(one, role="matched", partner=None) for one in pieces.table),
    )
    return _with_roles(_partnered(fresh, overlap), overlap, shares)


def overlap_under(pieces: Pieces, ihc_from_he: Transform) -> Overlap:
    """What a transform between the pictures lays on what.

    Areas of the IHC are counted on the H&E picture and scaled by the affine part's change of area.
    """
    n_he, n_ihc = int(pieces.he.max()), int(pieces.ihc.max())
    height, width = pieces.he.shape
    at = positions(ihc_from_he, shape=(height, width))
    reach = EDGE_FRAC * max(*pieces.he.shape, *pieces.ihc.shape)

    near_ihc, near_he = spread_pieces(pieces.ihc, reach_px=reach), spread_pieces(pieces.he, reach_px=reach)
    he_counts = _counts(pieces.he, look_up(near_ihc, at), n_he, n_ihc)
    ihc_counts = _counts(near_he, look_up(pieces.ihc, at), n_he, n_ihc)
    ihc_counts *= abs(float(np.linalg.det(ihc_from_he.affine[:2, :2])))
    he_px, ihc_px = (
        np.bincount(labels.ravel(), minlength=count + 1)[1:].astype(np.float64)
        for labels, count in ((pieces.he, n_he), (pieces.ihc, n_ihc))
    )
    return Overlap(
        he_counts / np.maximum(he_px, 1)[:, None], np.minimum(ihc_counts / np.maximum(ihc_px, 1), 1.0), he_px, ihc_px
    )


def look_up(labels: UInt8[np.ndarray, "ih iw"], at: Float32[np.ndarray, "2 h w"]) -> UInt8[np.ndarray, "h w"]:
    """A label map at positions in its px, the nearest px, so that numbers are not mixed; 0 beyond it."""
    x, y = np.floor(at).astype(np.int32)
    inside = (x >= 0) & (y >= 0) & (x < labels.shape[1]) & (y < labels.shape[0])
    seen = labels[np.clip(y, 0, labels.shape[0] - 1), np.clip(x, 0, labels.shape[1] - 1)]
    found: np.ndarray = np.where(inside, seen, 0).astype(np.uint8)
    return found


def _found(pictures: Pictures) -> Pieces:
    """All pieces, as matched."""
    # The same threshold as the features that are registered.
    smooth = max(1.0, SMOOTH_UM / pictures.mpp)
    he, ihc = (
        group_pieces(threshold_tissue(picture, smooth_px=smooth)) for picture in (pictures.fixed, pictures.moving)
    )
    dab = Separator(stain_matrix(HAEMATOXYLIN, DAB), tuple(white_point(pictures.moving)), stains=(1,))(pictures.moving)
    brown = dab[0] > DAB_OD
    table = [
        Piece(
            stain=stain,
            number=number,
            role="matched",
            partner=None,
            area_mm2=round(float(len(rows)) * (pictures.mpp / 1000) ** 2, 6),
            centre_um=(
                round(float(columns.mean() + 0.5) * pictures.mpp, 1),
                round(float(rows.mean() + 0.5) * pictures.mpp, 1),
            ),
            dab_frac=round(float(brown[rows, columns].mean()), 4) if stain == "ihc" else None,
        )
        for stain, labels in zip(STAINS, (he, ihc), strict=True)
        for number in range(1, int(labels.max()) + 1)
        for rows, columns in [np.nonzero(labels == number)]
    ]
    return Pieces(he, ihc, tuple(table))


def _edited(pieces: Pieces, edits: str, *, case_id: str) -> Pieces:
    try:
        roles = read_piece_roles(edits)
    except ValueError as error:
        raise RegistrationError(case_id, f"pieces: {error}") from None
    names = [piece.name for piece in pieces.table]
    for stain, number in roles:
        if f"{stain}{number}" not in names:
            raise RegistrationError(
                case_id,
                f"pieces: no piece {stain}{number}; found are {', '.join(names) or 'none'}, numbered on the case's "
                "picture; correct the cell",
            )
    table = [
        replace(piece, role=roles[piece.stain, piece.number], by="person")
        if (piece.stain, piece.number) in roles
        else piece
        for piece in pieces.table
    ]
    return replace(pieces, table=tuple(table))


def _likely(found: Sequence[Arrangement]) -> list[Arrangement]:
    return [one for one in found if one.overlap.score >= NEAR_BEST * found[0].overlap.score > 0]


def _fit(overlap: Overlap) -> tuple[float, float]:
    """How well the outlines of the pieces in groups fit, and their share of all tissue, 0 to 1."""
    paired = sum(float(overlap.he_px[rows].sum() + overlap.ihc_px[columns].sum()) for rows, columns in overlap.groups())
    every = max(float(overlap.he_px.sum() + overlap.ihc_px.sum()), 1.0)
    return overlap.score * every / max(paired, 1.0), paired / every


def _partnered(pieces: Pieces, overlap: Overlap | None) -> Pieces:
    """Partners by the largest overlap, counted in tissue; a slide's only piece is that of the other's only piece."""
    he, ihc = pieces.of("he"), pieces.of("ihc")
    shared = np.zeros((len(he), len(ihc)))
    if overlap is not None:
        shared[: len(overlap.he_px), : len(overlap.ihc_px)] = overlap.he_on_ihc * overlap.he_px[:, None]
    elif len(he) == 1 and len(ihc) == 1:
        shared[:] = 1.0
    for stain, each, table in (("he", he, shared), ("ihc", ihc, shared.T)):
        for index, piece in enumerate(each):
            if piece.role == "matched" and table.shape[1] and table[index].max() > 0:
                each[index] = replace(piece, partner=int(np.argmax(table[index])) + 1)
        assert all(piece.stain == stain for piece in each)
    return replace(pieces, table=(*he, *ihc))


def _with_roles(pieces: Pieces, overlap: Overlap, shares: Mapping[Stain, np.ndarray]) -> Pieces:
    """Pieces whose share on the other slide is too small are taken out, if that leaves one slide nearly whole."""
    grouped: dict[Stain, set[int]] = {
        "he": {int(row) for rows, _ in overlap.groups() for row in rows},
        "ihc": {int(column) for _, columns in overlap.groups() for column in columns},
    }
    alone: dict[Stain, list[Piece]] = {
        stain: [
            piece
            for piece in pieces.of(stain)
            if piece.by == "found"
            and piece.number - 1 not in grouped[stain]
            and (piece.number > len(shares[stain]) or shares[stain][piece.number - 1] < COVERED)
        ]
        for stain in STAINS
    }
    paired = [piece for piece in pieces.of("ihc") if piece.role == "matched" and piece not in alone["ihc"]]
    stained = [piece for piece in alone["ihc"] if _is_strongly_stained(piece, paired)]
    moved = _moved(pieces, alone["he"], [piece for piece in alone["ihc"] if piece not in stained])
    left = []
    for stain in STAINS:
        wanted = [piece for piece in pieces.of(stain) if piece.role == "matched" and piece not in stained]
        with_partner = sum(piece.area_mm2 for piece in wanted if piece not in alone[stain] or piece.name in moved)
        left.append(with_partner / max(sum(piece.area_mm2 for piece in wanted), 1e-12))
    if max(left) < MIN_WHOLE:
        return pieces
    table = []
    for piece in pieces.table:
        if piece not in alone[piece.stain]:
            table.append(piece)
        elif piece.name in moved:
            table.append(replace(piece, partner=moved[piece.name]))
        elif piece.stain == "he":
            table.append(replace(piece, role="missing", partner=None))
        else:
            role: PieceRole = "control" if piece in stained else _ihc_only(piece, paired, pieces)
            table.append(replace(piece, role=role, partner=None))
    gone = {piece.name for piece in table if piece.role != "matched"}
    other = {"he": "ihc", "ihc": "he"}
    return replace(
        pieces,
        table=tuple(
            replace(piece, partner=None) if f"{other[piece.stain]}{piece.partner}" in gone else piece for piece in table
        ),
    )


def _moved(pieces: Pieces, he_alone: Sequence[Piece], ihc_alone: Sequence[Piece]) -> dict[str, int]:
    """Pieces left over on both slides that are alike: rather one piece that floated off than a loss and an extra."""
    partners: dict[str, int] = {}
    for he in he_alone:
        for ihc in ihc_alone:
            if ihc.name not in partners and he.name not in partners and _alike(pieces, he, ihc):
                partners |= {he.name: ihc.number, ihc.name: he.number}
    return partners


def _alike(pieces: Pieces, he: Piece, ihc: Piece) -> bool:
    smaller, larger = sorted((he.area_mm2, ihc.area_mm2))
    if smaller < LIKE_AREA * larger:
        return False
    return outline_likeness(pieces.he == he.number, pieces.ihc == ihc.number) >= LIKE_OUTLINE


def _is_strongly_stained(piece: Piece, paired: Sequence[Piece]) -> bool:
    """Whether DAB covers far more of a piece than of those that have a partner."""
    stained = [one.dab_frac or 0.0 for one in paired]
    usual = float(np.average(stained, weights=[one.area_mm2 for one in paired])) if paired else 0.0
    return (piece.dab_frac or 0.0) >= max(STRONG_DAB, STRONGER * usual)


def _ihc_only(piece: Piece, paired: Sequence[Piece], pieces: Pieces) -> PieceRole:
    """What a pale piece of the IHC without a partner is: one more cut of the specimen, or control tissue far off."""
    if any(_alike(pieces, he, piece) for he in pieces.of("he") if he.role == "matched"):
        return "extra"
    specimen = np.isin(pieces.ihc, [one.number for one in paired])
    if not specimen.any():
        return "extra"
    rows, columns = np.flatnonzero(specimen.any(axis=1)), np.flatnonzero(specimen.any(axis=0))
    diagonal = math.hypot(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)
    away = cv2.distanceTransform((~specimen).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return "control" if float(away[pieces.ihc == piece.number].min()) > FAR_FRAC * diagonal else "extra"


def _painted(
    picture: UInt8[np.ndarray, "h w 3"], labels: UInt8[np.ndarray, "h w"], out: Sequence[int]
) -> UInt8[np.ndarray, "h w 3"]:
    if not out:
        return picture
    made = picture.copy()
    made[np.isin(spread_pieces(labels), out)] = np.rint(white_point(picture)).astype(np.uint8)
    return made


def _counts(he: UInt8[np.ndarray, "h w"], ihc: np.ndarray, n_he: int, n_ihc: int) -> Float[np.ndarray, "nh ni"]:
    place = he.astype(np.int64) * (n_ihc + 1) + ihc
    counts = np.bincount(place.ravel(), minlength=(n_he + 1) * (n_ihc + 1)).reshape(n_he + 1, n_ihc + 1)
    found: np.ndarray = counts[1:, 1:].astype(np.float64)
    return found


def _maps(pieces: Pieces) -> tuple[tuple[Stain, np.ndarray], tuple[Stain, np.ndarray]]:
    return ("he", pieces.he), ("ihc", pieces.ihc)
