import json

import numpy as np
import pytest
import zarr
from PIL import Image
from registration_drawing import MPP, as_slides, draw_section, partner, turn
from typer.testing import CliRunner

from hepipe.cli import registration as commands
from hepipe.errors import StoreError
from hepipe.geometry import Transform, translation
from hepipe.registration.common import common_tissue
from hepipe.registration.pictures import checkerboard
from hepipe.status import OK, failed
from hepipe.stores.arrays import open_group, read_registered, read_tissue
from hepipe.stores.cases import CheckedCase, SlideFacts, write_checked
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import TILES, VERDICTS, write_table

QUICK = {"search": {"rotation_step_deg": 20.0, "flips": False}, "chain": ["search", "affine"]}


@pytest.fixture
def hepipe():
    import typer

    app = typer.Typer()
    commands.register(app)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result

    return run


@pytest.fixture
def case(tmp_path, section):
    """Two pictures on disk with the record that `check` leaves."""
    moved, _ = partner(section, turn(15.0), warp_px=0.0)
    return prepare(tmp_path, section, moved)


def prepare(folder, he_density, ihc_density, status=OK):
    facts = {}
    for stain, slide in zip(("he", "ihc"), as_slides(he_density, ihc_density), strict=True):
        Image.fromarray(slide._array).save(folder / f"{stain}.png")
        facts[stain] = SlideFacts(
            slide_id=f"C1-{stain}",
            reader="picture",
            format="picture",
            mpp=MPP,
            mpp_from="sheet",
            size_px0=slide.size_px0,
            origin_px0=(0, 0),
            downsamples=(1.0,),
            tissue_mm2=0.1,
            content_sha256="0" * 64,
        )
    record = CheckedCase(
        case_id="C1",
        patient_id="P1",
        marker="HER2",
        her2_score=None,
        section="restained",
        he=facts["he"],
        ihc=facts["ihc"],
        provenance=Provenance(artefact="checked", subject="C1", status=status),
    )
    write_checked(folder / "C1.json", record)
    return folder


def slides_of(folder):
    return ["--he", folder / "he.png", "--ihc", folder / "ihc.png", "--checked", folder / "C1.json"]


def tables(folder):
    tile = {
        "tile_id": "C1/0-0",
        "case_id": "C1",
        "patient_id": "P1",
        "row_in_store": 0,
        "x_px0": 60,
        "y_px0": 60,
        "canvas_x_px0": 0,
        "canvas_y_px0": 0,
        "mpp": MPP,
        "her2_score": None,
        "marker": "HER2",
        "section": "restained",
        "source_split": None,
        "tissue_frac": 1.0,
        "region": "",
        "place": "inside",
        "problem": "",
        "he_sha256": "a",
        "slide_id": None,
        "batch": None,
        "score_level": "slide",
        "source_set": "",
        "source_name": "",
        "warped_stain": "ihc",
        "he_phash": None,
        "ihc_phash": None,
        "ihc_sha256": "b",
        "measurements": {},
    }
    tiles = Provenance(artefact="tiles", subject="C1", spec={"tile_px": 32})
    write_table([tile], folder / "tiles.parquet", TILES, tiles)
    verdict = {"tile_id": "C1/0-0", "keep": True, "reason": "", "flags": [], "alignment": "aligned"}
    write_table([verdict], folder / "verdict.parquet", VERDICTS, Provenance(artefact="verdict", subject="C1"))
    return ["--index", folder / "tiles.parquet", "--verdict", folder / "verdict.parquet"]


def test_a_case_goes_from_slides_to_pictures(hepipe, case):
    transform, tissue, pictures = case / "t.zarr", case / "m.zarr", case / "pictures"
    hepipe("register", *slides_of(case), "--transform", transform, "--spec", json.dumps(QUICK))
    registered = read_registered(transform)
    assert registered.provenance.status == OK
    assert registered.summary["rotation_deg"] == pytest.approx(15.0, abs=1.0)
    hepipe("tissue", *slides_of(case), "--transform", transform, "--tissue", tissue)
    group, _ = open_group(tissue, "tissue")
    assert {"tissue", "he", "ihc", "pieces_he", "pieces_ihc"} <= set(group.array_keys())
    assert read_tissue(tissue).tissue.any()
    hepipe(
        "picture", *slides_of(case), "--transform", transform, "--tissue", tissue, *tables(case), "--pictures", pictures
    )
    facts = json.loads((pictures / "facts.json").read_text())
    assert {"after", "before", "deformation", "edges", "he", "ihc", "tissue", "warped"} <= set(facts["pictures"])
    assert facts["tiles"] == {"n": 1, "kept": 1}
    assert facts["registration"]["similarity"] == registered.summary["similarity"]
    with Image.open(pictures / "after.jpg") as image:
        assert image.size == (224, 224)
        assert not image.getexif()


def test_slides_without_a_record_register_with_the_given_mpp(hepipe, case):
    hepipe(
        *("register", "--he", case / "he.png", "--ihc", case / "ihc.png", "--mpp-he", MPP, "--mpp-ihc", MPP),
        *("--transform", case / "t.zarr", "--spec", json.dumps(QUICK)),
    )
    assert read_registered(case / "t.zarr").provenance.subject == "case"


def test_a_failed_case_passes_its_status_on_whole(hepipe, tmp_path, section):
    why = failed("slides", "truncated")
    folder = prepare(tmp_path, section, section, status=why)
    transform, tissue = folder / "t.zarr", folder / "m.zarr"
    hepipe("register", *slides_of(folder), "--transform", transform)
    assert read_registered(transform).provenance.status == why
    hepipe("tissue", *slides_of(folder), "--transform", transform, "--tissue", tissue)
    assert read_tissue(tissue).provenance.status == why
    assert read_tissue(tissue).tissue is None
    pictures = folder / "pictures"
    hepipe(
        "picture",
        *slides_of(folder),
        "--transform",
        transform,
        "--tissue",
        tissue,
        *tables(folder),
        "--pictures",
        pictures,
    )
    assert json.loads((pictures / "facts.json").read_text())["pictures"] == ["before", "he", "ihc"]


def test_a_bad_landmarks_file_fails_the_case_not_the_command(hepipe, case):
    hepipe("register", *slides_of(case), "--transform", case / "t.zarr", "--landmarks", case / "none.csv")
    status = read_registered(case / "t.zarr").provenance.status
    assert (status.state, status.stage) == ("failed", "registration")
    assert "landmarks file is missing" in status.reason


def test_slides_without_common_tissue_fail_at_the_tissue(hepipe, tmp_path):
    left, right = np.zeros((224, 224), np.float32), np.zeros((224, 224), np.float32)
    left[60:160, 20:90] = right[60:160, 130:200] = 0.4
    folder = prepare(tmp_path, left, right)
    still = {"chain": ["identity"], "gate": {"restained": {"min_similarity": -1.0, "min_tissue_dice": 0.0}}}
    hepipe("register", *slides_of(folder), "--transform", folder / "t.zarr", "--spec", json.dumps(still))
    hepipe("tissue", *slides_of(folder), "--transform", folder / "t.zarr", "--tissue", folder / "m.zarr")
    status = read_tissue(folder / "m.zarr").provenance.status
    assert (status.state, status.stage) == ("failed", "tissue")
    assert "no tissue in common" in status.reason


def test_common_tissue_is_what_both_show_in_the_frame_of_the_he_slide():
    from hepipe.specs.slides import TissueSpec

    he, ihc = np.zeros((224, 224), np.float32), np.zeros((224, 224), np.float32)
    he[60:160, 40:120] = 0.4
    ihc[60:160, 100:180] = 0.4
    shift = Transform(translation(40.0, 0.0), MPP, MPP)
    found = common_tissue(*as_slides(he, ihc), shift, TissueSpec(mpp=MPP))
    rows, columns = np.nonzero(found.masks["tissue"])
    assert (columns.min(), columns.max()) == pytest.approx((60, 119), abs=3)
    assert (rows.min(), rows.max()) == pytest.approx((60, 159), abs=3)
    assert found.summary["n_pieces"] == 1


def test_a_checkerboard_of_equal_pictures_is_the_picture():
    rgb = as_slides(draw_section(1), draw_section(1))[0]._array
    np.testing.assert_array_equal(checkerboard(rgb, rgb, Transform(np.eye(3), 1.0, 1.0)), rgb)


def test_a_failed_registration_keeps_what_it_proposed_for_looking_at(hepipe, case):
    strict = {**QUICK, "gate": {"restained": {"min_similarity": 2.0}}}
    hepipe("register", *slides_of(case), "--transform", case / "t.zarr", "--spec", json.dumps(strict))
    registered = read_registered(case / "t.zarr")
    assert registered.provenance.status.failed
    assert registered.ihc_from_he is None
    assert registered.proposed is not None
    assert registered.digest == ""


def outlined(folder, name, side):
    """A QuPath file with one square of `side` px, from (60, 60) of the drawn slide."""
    low, high = 60, 60 + side
    ring = [[low, low], [high, low], [high, high], [low, high], [low, low]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": name}},
    }
    path = folder / f"{name}.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


@pytest.fixture
def registered(hepipe, tmp_path, section):
    """A pair that lies on itself, registered as it is."""
    folder = prepare(tmp_path, section, section)
    still = {"chain": ["identity"], "gate": {"restained": {"min_similarity": -1.0, "min_tissue_dice": 0.0}}}
    hepipe("register", *slides_of(folder), "--transform", folder / "t.zarr", "--spec", json.dumps(still))

    def tissue(name, *options):
        hepipe(
            *("tissue", *slides_of(folder), "--transform", folder / "t.zarr", "--tissue", folder / f"{name}.zarr"),
            *("--outlines", folder / f"{name}-out.geojson", *options),
        )
        return read_tissue(folder / f"{name}.zarr")

    return folder, tissue


def test_an_outlined_region_is_in_the_tissue_map_and_an_excluded_one_is_none(registered):
    folder, tissue = registered
    plain = tissue("plain")
    tumour = tissue("tumour", "--regions", outlined(folder, "Tumor", 40))
    out = tissue("out", "--regions", outlined(folder, "Ignore*", 40))
    assert plain.regions is None
    np.testing.assert_array_equal(tumour.tissue, plain.tissue)
    drawn = tumour.regions == 1
    assert drawn.sum() == pytest.approx(40**2 * (MPP / tumour.mpp) ** 2, rel=0.1)
    assert (drawn & plain.tissue).any()
    np.testing.assert_array_equal(out.tissue, plain.tissue & ~drawn)
    assert tumour.provenance.inputs["regions"] != out.provenance.inputs["regions"]
    group, _ = open_group(folder / "tumour.zarr", "tissue")
    assert [row["region"] for row in group.attrs["summary"]["regions"]["classes"]] == ["tumour"]
    names = [
        one["properties"]["classification"]["name"]
        for one in json.loads((folder / "tumour-out.geojson").read_text())["features"]
    ]
    assert names == ["tissue", "tumour"]


def test_bad_regions_fail_the_case_not_the_command(registered):
    folder, tissue = registered
    for name, options, words in (
        ("none", ("--regions", folder / "nowhere.geojson"), "regions: there is no such file"),
        ("class", ("--regions", outlined(folder, "Stroma", 40)), "'Stroma' of feature 1 is not known"),
    ):
        status = tissue(name, *options).provenance.status
        assert (status.state, status.stage) == ("failed", "tissue")
        assert words in status.reason
        assert json.loads((folder / f"{name}-out.geojson").read_text())["features"] == []


def test_outlines_without_tissue_are_told_as_those_of_another_slide(registered):
    folder, tissue = registered
    path = outlined(folder, "Tumor", 40)
    document = json.loads(path.read_text())
    document["features"][0]["geometry"]["coordinates"] = [[[0, 0], [12, 0], [12, 12], [0, 12], [0, 0]]]
    path.write_text(json.dumps(document))
    status = tissue("glass", "--regions", path).provenance.status
    assert (status.state, status.stage) == ("failed", "tissue")
    assert "another slide's file, or not px of level 0" in status.reason


def test_outlines_in_another_unit_or_level_are_told_as_such(registered):
    """In µm they lie beside a slide of px of 4 µm; counted on a level 16 times smaller, on its glass."""
    folder, tissue = registered
    meant = np.array(json.loads(outlined(folder, "Tumor", 40).read_text())["features"][0]["geometry"]["coordinates"])
    for factor, words in ((MPP, "as µm it would lie on it"), (1 / 16, "as px of a level 16 times smaller")):
        path = outlined(folder, "Tumor", 40)
        document = json.loads(path.read_text())
        document["features"][0]["geometry"]["coordinates"] = (meant * factor).tolist()
        path.write_text(json.dumps(document))
        status = tissue(f"x{factor}", "--regions", path).provenance.status
        assert (status.state, status.stage) == ("failed", "tissue")
        assert words in status.reason


def test_a_map_of_tissue_from_a_stranger_is_not_believed(registered):
    folder, tissue = registered
    tissue("odd", "--regions", outlined(folder, "Tumor", 40))
    group = zarr.open_group(folder / "odd.zarr", mode="r+", zarr_format=3)
    del group["regions"]
    group.create_array("regions", shape=(3, 3), chunks=(3, 3), dtype="uint8")[:] = 1
    with pytest.raises(StoreError, match="maps of different sizes"):
        read_tissue(folder / "odd.zarr")
    del group["regions"]
    group.create_array("regions", shape=(9000, 9000), chunks=(3, 3), dtype="uint8")
    with pytest.raises(StoreError, match="81,000,000 values"):
        read_tissue(folder / "odd.zarr")
