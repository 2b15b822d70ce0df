import numpy as np
import pytest
from PIL import Image

from hepipe.errors import ConfigError
from hepipe.importers.aligned import open_aligned
from hepipe.importers.files import tiles_below
from hepipe.importers.folder import open_folders
from hepipe.importers.names import captured, read_scores
from hepipe.importers.pairs import import_tiles, sample_pixels
from hepipe.specs.imports import ImportSpec
from hepipe.specs.stains import StainsSpec
from hepipe.stains.deconvolution import Separator
from hepipe.stains.estimate import estimate
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, stain_matrix
from hepipe.stores.provenance import Provenance
from hepipe.stores.tiles import TileStore, TileWriter
from hepipe.tiling.cut import ARRAYS

SPEC = ImportSpec(kind="folder", path="x", mpp=0.5)


def save(path, *, side=(16, 16), seed=0, format="PNG", mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side[1], side[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, format=format)
    return pixels


def test_laboratory_numbers_in_names_that_nothing_replaces_are_a_warning(put, opened, tmp_path):
    put("train/67M2100642_15_18.jpg", "train/67M2100642_15_19.jpg", "test/00000_train_1+.jpg", side=(32, 16))

    def warned(**options):
        return [text for text in opened("aligned", mpp=0.5, **options).told["warnings"] if "laboratory" in text]

    assert warned()[0].startswith("2 file names hold what looks like a laboratory's number")
    assert "67M" not in warned()[0]
    assert not warned(case_pattern=r"(\d+[A-Z]\d+|0+)_")
    assert not warned(alias="never")


@pytest.fixture
def bci(tmp_path):
    for number, (split, name) in enumerate(
        [("train", "00001_train_1+"), ("test", "00002_test_0"), ("test", "00003_test_3+")]
    ):
        save(tmp_path / "HE" / split / f"{name}.png", seed=number)
        save(tmp_path / "IHC" / split / f"{name}.png", seed=100 + number)
    return tmp_path


def test_pairs_are_found_by_name_with_their_split(bci):
    tiles = open_folders(bci, SPEC)
    assert [pair.tile_id for pair in tiles.pairs] == ["test/00002_test_0", "test/00003_test_3+", "train/00001_train_1+"]
    assert tiles.tile_px == 16


def test_splits_may_lie_above_the_stains(tmp_path):
    for stain in ("HE", "IHC"):
        save(tmp_path / "val" / stain / "a.png")
    assert [pair.tile_id for pair in open_folders(tmp_path, SPEC).pairs] == ["val/a"]


def test_tiles_in_no_split_folder_get_the_specs_split(tmp_path):
    for stain in ("HE", "IHC"):
        save(tmp_path / stain / "slide1" / "a.png")
    assert [pair.tile_id for pair in open_folders(tmp_path, SPEC).pairs] == ["test/slide1/a"]


def test_a_missing_partner_stops_the_import_and_is_named(bci):
    (bci / "IHC" / "test" / "00002_test_0.png").unlink()
    save(bci / "IHC" / "test" / "zz.png")
    with pytest.raises(
        ConfigError, match=r"2 tiles without a partner: test/00002_test_0 \(no IHC\), test/zz \(no HE\)"
    ):
        open_folders(bci, SPEC)
    tiles = open_folders(bci, SPEC.model_copy(update={"allow_missing": True}))
    assert len(tiles.pairs) == 2
    assert [(pair.tile_id, pair.he is None, pair.problem) for pair in tiles.dropped] == [
        ("test/00002_test_0", False, "no partner"),
        ("test/zz", True, "no partner"),
    ]


def test_the_format_is_told_by_the_bytes(tmp_path):
    for stain in ("HE", "IHC"):
        save(tmp_path / stain / "a.png", format="JPEG")
    he, _ = open_folders(tmp_path, SPEC).pairs[0].read()
    assert he.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"side": (16, 20)}, r"not so: b.png \(16 x 20\)"),
        ({"mode": "L"}, r"b.png \(mode L, 8-bit RGB expected\)"),
        ({"mode": "RGBA"}, r"b.png \(mode RGBA"),
        ({"format": "GIF"}, r"b.png \(GIF file\)"),
    ],
)
def test_files_that_cannot_be_used_are_listed(tmp_path, change, text):
    for stain in ("HE", "IHC"):
        save(tmp_path / stain / "a.png")
        save(tmp_path / stain / "b.png", **(change if stain == "HE" else {}))
    with pytest.raises(ConfigError, match=text):
        open_folders(tmp_path, SPEC)


def test_a_file_that_is_no_picture_is_listed(tmp_path):
    for stain in ("HE", "IHC"):
        (tmp_path / stain).mkdir()
        (tmp_path / stain / "notes.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"notes.png \(no readable picture\)"):
        open_folders(tmp_path, SPEC)


def test_hidden_files_are_left_out(tmp_path):
    save(tmp_path / "a.png")
    for name in (".DS_Store", "Thumbs.db", "a.png:Zone.Identifier", "._a.png"):
        (tmp_path / name).write_text("x")
    assert [tile.name for tile in tiles_below(tmp_path)] == ["a"]


def test_names_that_differ_in_the_suffix_only_are_an_error(tmp_path):
    save(tmp_path / "a.png")
    save(tmp_path / "a.jpg", format="JPEG")
    with pytest.raises(ConfigError, match=r"suffix only: a.png"):
        tiles_below(tmp_path)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no files in"):
        open_folders(tmp_path, SPEC)


def test_aligned_pictures_are_cut_in_the_middle(tmp_path):
    pixels = save(tmp_path / "train" / "a.png", side=(32, 16))
    tiles = open_aligned(tmp_path, SPEC.model_copy(update={"kind": "aligned"}))
    assert tiles.pairs[0].tile_id == "train/a"
    he, ihc = tiles.pairs[0].read()
    np.testing.assert_array_equal(he, pixels[:, :16])
    np.testing.assert_array_equal(ihc, pixels[:, 16:])


def test_aligned_pictures_must_be_two_squares(tmp_path):
    save(tmp_path / "a.png", side=(30, 16))
    with pytest.raises(ConfigError, match="30 x 16 px; two square tiles"):
        open_aligned(tmp_path, SPEC)


def test_scores_and_cases_come_from_the_file_name():
    names = ["s1_x_3+.png", "s2_x_0.png"]
    assert read_scores(names, r"_(0|1\+|2\+|3\+)\.") == {"s1_x_3+.png": "3+", "s2_x_0.png": "0"}
    assert captured(names, r"^(s\d)_", "case_pattern") == {"s1_x_3+.png": "s1", "s2_x_0.png": "s2"}
    assert read_scores(names, None) == {"s1_x_3+.png": None, "s2_x_0.png": None}


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(", "not a regular expression"),
        ("x", "0 groups, 1 expected"),
        ("(q)", "no match in a.png"),
        ("(a)", "'a' found"),
    ],
)
def test_a_pattern_that_does_not_fit_is_an_error(pattern, text):
    with pytest.raises(ConfigError, match=text):
        read_scores(["a.png"], pattern)


def test_imported_tiles_come_into_the_store_with_their_rows(bci, tmp_path):
    spec = SPEC.model_copy(update={"score_pattern": r"_(0|1\+|2\+|3\+)\."})
    tiles = open_folders(bci, spec)
    made = Provenance(artefact="tiles", subject="imported")
    store = TileWriter(tmp_path / "t.zarr", made, mpp=0.5, tile_px=16, arrays=ARRAYS)
    rows = import_tiles(
        tiles,
        spec,
        measures=[lambda he, ihc, mpp: {"white_frac_he": 0.25, "white_frac_ihc": 0.5}],
        dab_mask=lambda ihc, mpp, measurements: ihc[..., 0] > 9,
        store=store,
        workers=2,
    )
    store.finish()
    assert [(row["tile_id"], row["her2_score"], row["source_split"]) for row in rows] == [
        ("test/00002_test_0", "0", "test"),
        ("test/00003_test_3+", "3+", "test"),
        ("train/00001_train_1+", "1+", "train"),
    ]
    assert rows[0]["case_id"] is None
    assert rows[0]["tissue_frac"] == 0.5
    opened = TileStore(tmp_path / "t.zarr")
    for row, pair in zip(rows, sorted(tiles.pairs, key=lambda pair: pair.tile_id), strict=True):
        np.testing.assert_array_equal(opened.read("ihc", row["row_in_store"]), pair.read()[1])


def test_stains_of_a_set_come_from_a_sample_spread_over_it(bci):
    he, ihc = sample_pixels(open_folders(bci, SPEC), 2)
    assert he.shape == ihc.shape == (2 * 16 * 16, 3)
    found = estimate(ihc, stain="ihc", spec=StainsSpec(vectors="fixed"))
    assert Separator(stain_matrix(found.first, found.second)).weights == pytest.approx(
        Separator(stain_matrix(HAEMATOXYLIN, DAB)).weights, abs=1e-4
    )
