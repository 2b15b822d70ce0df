import dataclasses

import cv2
import numpy as np
import pytest
from registration_drawing import MPP, stain, turn

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform
from hepipe.registration.arrangement import arrangements, outline_likeness
from hepipe.registration.overview import Pictures
from hepipe.registration.piece_pictures import COLORS, draw_pieces
from hepipe.registration.pieces import Pieces, mask_out, match_pieces, read_pieces, relabel

SIDE = 224
BROWN, BLUE, PINK = (0.27, 0.57, 0.78), (0.65, 0.70, 0.29), (0.4, 0.9, 0.5)
# Four outlines unlike each other, as a hull of points on a canvas of SIDE px, and a fifth apart for a control.
OUTLINES = {
    "a": [(20, 20), (85, 15), (95, 50), (60, 60), (55, 95), (15, 80)],
    "b": [(125, 25), (205, 30), (200, 60), (130, 55)],
    "c": [(130, 100), (160, 85), (205, 130), (190, 205), (150, 190), (165, 150)],
    "d": [(25, 125), (60, 120), (50, 205), (15, 190)],
}
LIKE_A = {"a2": [(x + 115, y + 105) for x, y in OUTLINES["a"]]}


def density(names, outlines=None, side: int = SIDE) -> np.ndarray:
    made = np.zeros((side, side), np.float32)
    for name in names:
        cv2.fillPoly(made, [np.array((outlines or OUTLINES)[name], np.int32)], 0.35)
    return made


def moved(picture: np.ndarray, ihc_from_he: np.ndarray, side: int = SIDE) -> np.ndarray:
    return cv2.warpAffine(picture, ihc_from_he[:2], (side, side))


def pair(he: np.ndarray, ihc: np.ndarray, *, brown: np.ndarray | None = None) -> Pictures:
    fixed, moving = stain(he, PINK, 1), stain(ihc, BLUE, 2)
    if brown is not None:
        moving = np.where((brown > 0)[..., None], stain(brown * 2, BROWN, 3), moving)
    return Pictures(MPP, fixed, moving, MPP, MPP)


def roles(pieces: Pieces) -> dict[str, str]:
    return {piece.name: piece.role for piece in pieces.table}


def number_at(labels: np.ndarray, name: str, ihc_from_he: np.ndarray | None = None) -> int:
    mask = density([name])
    seen = labels[(mask if ihc_from_he is None else moved(mask, ihc_from_he)) > 0.3]
    return int(np.bincount(seen).argmax())


@pytest.mark.parametrize("missing", "abcd")
def test_the_piece_of_four_that_the_other_slide_lacks_is_missing(missing):
    placed = turn(70, shift=(6, -4))
    found = match_pieces(pair(density("abcd"), moved(density(set("abcd") - {missing}), placed)))
    out = number_at(found.he, missing)
    assert {piece.number for piece in found.of("he") if piece.role == "missing"} == {out}
    assert all(piece.role == "matched" for piece in found.of("ihc"))
    for name in set("abcd") - {missing}:
        (piece,) = [one for one in found.of("he") if one.number == number_at(found.he, name)]
        assert piece.partner == number_at(found.ihc, name, placed)


def test_a_mirrored_slide_with_all_pieces_keeps_them_all():
    found = match_pieces(pair(density("abcd"), moved(density("abcd"), turn(-120, mirrored=True))))
    assert set(roles(found).values()) == {"matched"}
    assert sorted(piece.partner for piece in found.of("he")) == [1, 2, 3, 4]


def test_a_stained_piece_far_away_is_a_control_and_does_not_hide_the_match():
    specimen = density("ac")
    wide = np.zeros((SIDE, 2 * SIDE), np.float32)
    wide[:, :SIDE] = moved(specimen, turn(30))
    brown = np.zeros_like(wide)
    cv2.circle(brown, (400, 40), 26, 0.35, -1)
    found = match_pieces(pair(specimen, np.maximum(wide, brown), brown=brown))
    (control,) = [piece for piece in found.of("ihc") if piece.role != "matched"]
    assert (control.role, control.centre_um) == ("control", pytest.approx((400.5 * MPP, 40.5 * MPP), abs=2 * MPP))
    assert control.dab_frac > 0.9
    assert roles(found)["he1"] == roles(found)["he2"] == "matched"


def test_like_pieces_that_cannot_be_told_apart_stay():
    # Two equal cuts on the IHC: outlines do not say which is the partner.
    he = density("a")
    ihc = density("a") + density(["a2"], LIKE_A)
    assert set(roles(match_pieces(pair(he, ihc))).values()) == {"matched"}


def test_after_registration_the_other_cut_is_extra():
    ihc = density("a") + density(["a2"], LIKE_A)
    pictures = pair(density("a"), ihc)
    here = Transform(np.eye(3), MPP, MPP)
    found = relabel(match_pieces(pictures), pictures, here)
    (extra,) = [piece for piece in found.of("ihc") if piece.role == "extra"]
    assert extra.number == number_at(found.ihc, "a", turn(0, shift=(115, 105)))
    (he,) = found.of("he")
    assert (he.role, he.partner) == ("matched", 3 - extra.number)


def test_a_piece_torn_in_two_is_neither_missing_nor_extra():
    ihc = density("abc")
    ihc[:, 45:51] = 0
    pictures = pair(density("abc"), ihc)
    found = match_pieces(pictures)
    assert len(found.of("ihc")) == 4
    assert set(roles(found).values()) == {"matched"}
    assert set(roles(relabel(found, pictures, Transform(np.eye(3), MPP, MPP))).values()) == {"matched"}


def test_strangers_keep_all_their_pieces():
    he, ihc = density("bd"), np.zeros((SIDE, SIDE), np.float32)
    cv2.circle(ihc, (60, 60), 40, 0.35, -1)
    cv2.circle(ihc, (160, 160), 12, 0.35, -1)
    pictures = pair(he, ihc)
    assert set(roles(match_pieces(pictures)).values()) == {"matched"}
    far = Transform(turn(0, shift=(200, 0)), MPP, MPP)
    assert set(roles(relabel(match_pieces(pictures), pictures, far)).values()) == {"matched"}


def test_a_piece_that_floated_off_is_matched_with_its_like():
    ihc = np.zeros((SIDE, 2 * SIDE), np.float32)
    ihc[:, :SIDE] = density("bcd")
    ihc[:, SIDE:] = moved(density("a"), turn(25))
    pictures = pair(density("abcd"), ihc)
    found = relabel(match_pieces(pictures), pictures, Transform(np.eye(3), MPP, MPP))
    assert set(roles(found).values()) == {"matched"}
    (he,) = [piece for piece in found.of("he") if piece.number == number_at(found.he, "a")]
    assert he.partner == int(found.ihc[:, SIDE:].max()) > 0


def test_what_a_person_says_wins_before_and_after():
    pictures = pair(density("abcd"), density("abc"))
    missing = next(name for name, role in roles(match_pieces(pictures)).items() if role == "missing")
    found = match_pieces(pictures, f"{missing}=matched, ihc3=extra")
    again = relabel(found, pictures, Transform(np.eye(3), MPP, MPP))
    for one in (found, again):
        assert (roles(one)[missing], roles(one)["ihc3"]) == ("matched", "extra")
        assert {piece.name for piece in one.table if piece.by == "person"} == {missing, "ihc3"}


def test_an_unknown_number_is_told_with_the_pieces_there_are():
    pictures = pair(density("ab"), density("a"))
    with pytest.raises(RegistrationError) as caught:
        match_pieces(pictures, "ihc2=control", case_id="C7")
    assert str(caught.value).startswith("case C7: pieces: no piece ihc2; found are he1, he2, ihc1, numbered")
    with pytest.raises(RegistrationError, match="he1=extra: a piece of he is matched or missing"):
        match_pieces(pictures, "he1=extra")


def test_a_slide_without_tissue_has_no_pieces():
    found = match_pieces(pair(np.zeros((SIDE, SIDE), np.float32), density("a")))
    assert roles(found) == {"ihc1": "matched"}


def test_pieces_that_are_out_become_glass_and_nothing_else_changes():
    pictures = pair(density("abcd"), density("abc"))
    found = match_pieces(pictures)
    painted = mask_out(pictures, found)
    gone = density("d") > 0
    assert painted.fixed[gone].min() > 235
    np.testing.assert_array_equal(painted.fixed[density("abc") > 0], pictures.fixed[density("abc") > 0])
    np.testing.assert_array_equal(painted.moving, pictures.moving)


def test_pieces_come_back_from_their_records():
    found = match_pieces(pair(density("abcd"), density("abc")), "ihc1=matched")
    again = read_pieces(found.he, found.ihc, found.records())
    assert again.table == found.table


def test_the_same_pictures_give_the_same_pieces():
    pictures = pair(density("abcd"), moved(density("abc"), turn(70)))
    assert match_pieces(pictures).table == match_pieces(pictures).table


def test_each_piece_is_drawn_in_the_colour_of_its_role():
    pictures = pair(density("abcd"), density("abc"))
    found = match_pieces(pictures)
    large = cv2.resize(pictures.fixed, (448, 448))
    drawn = draw_pieces(large, found.he, found.of("he"))
    assert drawn.shape == large.shape
    for name, role in (("a", "matched"), ("d", "missing")):
        rim = cv2.resize(density(name), (448, 448)) > 0
        near = cv2.dilate(rim.astype(np.uint8), np.ones((5, 5))) > 0
        assert (np.abs(drawn[near].astype(int) - COLORS[role]).max(axis=1) < 12).sum() > 50


def test_a_likely_arrangement_lays_each_piece_on_its_partner():
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for number, name in enumerate("abc", start=1):
        labels[density(name) > 0] = number
    placed = turn(100, shift=(5, 5))
    there = cv2.warpAffine(labels, placed[:2], (SIDE, SIDE), flags=cv2.INTER_NEAREST)
    best = arrangements(labels, there)[0]
    assert best.overlap.score > 0.9
    assert np.abs(best.ihc_from_he - placed)[:2, :2].max() < 0.05
    assert [(list(he), list(ihc)) for he, ihc in best.overlap.groups()] == [([0], [0]), ([1], [1]), ([2], [2])]


def test_sections_of_unknown_pixel_size_are_matched_at_another_size():
    smaller = moved(density("abc"), turn(40, scale=0.72))
    pictures = dataclasses.replace(pair(density("abcd"), smaller), free_scale=True)
    found = match_pieces(pictures)
    assert {piece.number for piece in found.of("he") if piece.role == "missing"} == {number_at(found.he, "d")}
    assert {piece.role for piece in found.of("ihc")} == {"matched"}


def test_outlines_are_alike_when_turned_and_unlike_when_other():
    a = density("a") > 0
    assert outline_likeness(a, moved(density("a"), turn(50)) > 0) > 0.8
    assert outline_likeness(a, density("b") > 0) < 0.5
