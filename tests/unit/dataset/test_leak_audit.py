import cv2
import numpy as np
import pytest

from hepipe.dataset.audit import EMPTY_HASH, audit, fine_likeness, refuse
from hepipe.dataset.near import TURNS, hash_bits, near_pairs, turned
from hepipe.errors import ConfigError
from hepipe.tiling.likeness import EMPTY, perceptual_hash


def row(tile_id, split, **changes):
    return {
        "tile_id": tile_id, "case_id": tile_id.split("/")[0], "patient_id": f"p-{tile_id.split('/')[0]}",
        "slide_id": None, "split": split, "fold": None, "x_px0": None, "y_px0": None, "he_sha256": f"h-{tile_id}",
        "ihc_sha256": f"i-{tile_id}", "he_phash": None, "ihc_phash": None, **changes,
    }  # fmt: skip


def audited(*rows, slides=None, sides=None, official=False, pixels=None, bits=6):
    return audit(
        rows, slides=slides or {}, sides_px0=sides or {}, near_bits=bits, official=official, pixels=pixels
    )  # fmt: skip


def picture(seed, side=256):
    """Blurred noise of several scales, as tissue has."""
    random = np.random.default_rng(seed)
    grey = sum(
        cv2.resize(random.normal(0, 20, (n, n)), (side, side), interpolation=cv2.INTER_CUBIC) for n in (5, 16, 60, 200)
    )
    return np.clip(170 + grey[..., None] + np.array([10, -20, 5]), 0, 255).astype(np.uint8)


def test_clean_splits_have_no_leak():
    found = audited(row("a/1", "train"), row("a/2", "train"), row("b/1", "test"))
    assert found.n_leaks == 0
    assert set(found.counts) == {"patient", "slide", "pixels", "overlap", "near-duplicate"}
    refuse(found, near_duplicates="fail")


def test_a_patient_in_two_splits_is_named_and_stops_the_data_set():
    found = audited(row("a/1", "train"), row("a/2", "test"))
    assert found.counts["patient"] == 1
    with pytest.raises(
        ConfigError, match=r"patient p-a is in test and in train\n  what to do: give all slides"
    ) as error:
        refuse(found, near_duplicates="warn")
    assert "no data set is written" in str(error.value)


def test_the_splits_of_an_imported_set_are_flagged_and_stop_nothing():
    found = audited(row("a/1", "train"), row("a/2", "test"), official=True)
    assert found.n_leaks == 1
    refuse(found, near_duplicates="fail")


def test_one_slide_under_two_patients_is_found_by_its_content():
    slides = {"a": {"he": "x" * 64, "ihc": "y" * 64}, "b": {"he": "z" * 64, "ihc": "y" * 64}}
    found = audited(row("a/1", "train"), row("b/1", "val"), slides=slides)
    assert found.counts["slide"] == 1
    assert found.leaks[0].line() == f"slide {'y' * 12} is in train and in val: ihc slide of cases a, b"
    together = audited(row("a/1", "train"), row("b/1", "train"), slides=slides)
    assert together.n_leaks == 0
    assert "stands under several patients, by chance in one split" in together.notes[0]


def test_a_slide_of_an_imported_set_is_found_by_its_id():
    found = audited(row("a/1", "train", slide_id="s1"), row("b/1", "test", slide_id="s1"), official=True)
    assert found.counts["slide"] == 1


def test_the_same_pixels_of_either_stain_are_found_but_empty_tiles_share_nothing():
    found = audited(row("a/1", "train", he_sha256="q"), row("b/1", "test", he_sha256="q"))
    assert found.leaks[0].line() == "tile a/1 (train) has the pixels of b/1 (test): H&E"
    assert audited(row("a/1", "train", ihc_sha256="q"), row("b/1", "test", ihc_sha256="q")).counts["pixels"] == 1
    empty = {"he_sha256": "q", "he_phash": EMPTY_HASH}
    assert audited(row("a/1", "train", **empty), row("b/1", "test", **empty)).n_leaks == 0
    assert EMPTY_HASH == EMPTY


@pytest.mark.parametrize(
    ("x", "y", "overlaps"), [(512, 0, False), (511, 0, False), (500, 0, True), (300, 300, True), (0, 600, False)]
)
def test_tiles_of_one_slide_overlap_across_splits_or_touch(x, y, overlaps):
    same = {"slide_id": "s"}
    first = row("a/1", "train", x_px0=0, y_px0=0, **same)
    found = audited(first, row("b/1", "test", x_px0=x, y_px0=y, **same), sides={"imported": 512.0}, official=True)
    assert found.counts["overlap"] == overlaps
    other = audited(first, row("b/1", "test", x_px0=x, y_px0=y, slide_id="t"), sides={"imported": 512.0})
    assert other.counts["overlap"] == 0


def test_overlaps_agree_with_a_comparison_of_every_pair():
    random = np.random.default_rng(3)
    rows = [
        row(f"{n}/1", ("train", "test")[n % 2], slide_id="s", x_px0=int(x), y_px0=int(y))
        for n, (x, y) in enumerate(random.integers(-2000, 2000, (120, 2)))
    ]
    found = audited(*rows, sides={"imported": 300.0}, official=True)
    every = sum(
        abs(a["x_px0"] - b["x_px0"]) < 298 and abs(a["y_px0"] - b["y_px0"]) < 298
        for a in rows[::2] for b in rows[1::2]
    )  # fmt: skip
    assert found.counts["overlap"] == every > 20


@pytest.mark.parametrize(("turns", "mirrored"), TURNS)
def test_a_turned_copy_has_the_turned_hash(turns, mirrored):
    for seed in range(10):
        tile = picture(seed)
        copy = np.ascontiguousarray(np.rot90(tile[:, ::-1] if mirrored else tile, turns))
        assert turned(hash_bits([perceptual_hash(tile)]), turns, mirrored)[0] == hash_bits([perceptual_hash(copy)])[0]


def test_a_hash_survives_encoding_and_shading_and_an_empty_tile_has_none():
    tile = picture(0)
    worse = cv2.imdecode(cv2.imencode(".jpg", tile, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)
    darker = (tile * 0.8).astype(np.uint8)
    bits = hash_bits([perceptual_hash(one) for one in (tile, worse, darker, picture(1))])
    assert np.bitwise_count(bits[0] ^ bits[1]) <= 3
    assert np.bitwise_count(bits[0] ^ bits[2]) <= 3
    assert np.bitwise_count(bits[0] ^ bits[3]) > 15
    noise = np.random.default_rng(0).normal(240, 3, (256, 256, 3)).clip(0, 255).astype(np.uint8)
    assert perceptual_hash(noise) == perceptual_hash(np.full((64, 64, 3), 255, np.uint8)) == EMPTY


def test_the_search_finds_every_near_pair_that_a_comparison_of_all_finds():
    random = np.random.default_rng(5)
    hashes = random.integers(0, 1 << 63, 300, dtype=np.uint64) | np.uint64(1 << 63)
    for place in range(0, 120, 2):
        flips = random.choice(63, random.integers(0, 10), replace=False)
        laid = turned(hashes[place : place + 1], int(random.integers(4)), bool(random.integers(2)))[0]
        hashes[place + 1] = laid ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
    groups = np.arange(300) % 3
    for bits in (0, 3, 4, 7):
        found = {(one, other): distance for one, other, distance, _ in near_pairs(hashes, groups, bits=bits)}
        every = {}
        for turns, mirrored in TURNS:
            laid = turned(hashes, turns, mirrored)
            distance = np.bitwise_count(laid[:, None] ^ hashes[None])
            for one, other in zip(*np.nonzero(distance <= bits), strict=True):
                if one < other and groups[one] != groups[other]:
                    pair = int(one), int(other)
                    every[pair] = min(every.get(pair, 99), int(distance[one, other]))
        assert found == every
        assert len(found) > 2


def test_a_turned_and_encoded_copy_is_a_near_duplicate_and_a_tile_alike_at_a_coarse_look_is_not():
    tile = picture(0)
    copy = np.ascontiguousarray(np.rot90(tile[:, ::-1]))
    copy = cv2.imdecode(cv2.imencode(".jpg", copy, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    other = picture(7).astype(float)
    coarse = cv2.resize(cv2.resize(tile, (12, 12), interpolation=cv2.INTER_AREA), (256, 256)) + other
    coarse -= cv2.GaussianBlur(other, (0, 0), 6)
    tiles = {"a/1": tile, "b/1": copy, "c/1": coarse.clip(0, 255).astype(np.uint8)}
    splits = {"a/1": "train", "b/1": "test", "c/1": "val"}
    rows = [row(name, splits[name], he_phash=perceptual_hash(one)) for name, one in tiles.items()]
    found = audited(*rows, pixels=lambda one: tiles[one["tile_id"]])
    assert found.counts["near-duplicate"] == 1
    assert found.alike == 2
    assert found.leaks[0].line().startswith("tile a/1 (train) is a near-duplicate of b/1 (test): ")
    assert "mirrored, turned by 90°; fine structure correlates by" in found.leaks[0].detail
    with pytest.raises(ConfigError, match="look at the pairs"):
        refuse(found, near_duplicates="fail")
    refuse(found, near_duplicates="warn")
    unread = audited(*rows)
    assert (unread.counts["near-duplicate"], unread.unread) == (3, 3)


def test_fine_structure_tells_a_shifted_copy_from_another_tile_of_the_same_coarse_look():
    tile = picture(0)
    shifted = np.ascontiguousarray(picture(0, 256)[6:, 6:])
    assert fine_likeness(tile, shifted, turns=0, mirrored=False) > 0.3
    assert abs(fine_likeness(tile, picture(9), turns=0, mirrored=False)) < 0.15
    flat = np.full((64, 64, 3), 200, np.uint8)
    assert fine_likeness(flat, flat, turns=0, mirrored=False) == 0


def test_folds_may_not_share_anything_either():
    rows = [row("a/1", "train", fold=2, he_sha256="q"), row("b/1", "train", fold=3, he_sha256="q")]
    assert audited(*rows).leaks[0].splits == ("fold 2", "fold 3")
