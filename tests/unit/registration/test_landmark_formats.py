import json
from dataclasses import dataclass

import numpy as np
import pytest

from hepipe.errors import RegistrationError
from hepipe.geometry import Transform, identity, translation
from hepipe.registration.formats import pairs_csv, qupath_geojson, read_listed
from hepipe.registration.landmarks import Landmarks, check_landmarks, fit_landmarks, read_landmarks, residuals_left_out
from hepipe.specs.registration import LandmarksSpec

HE = np.array([[1000.0, 2000.0], [15000.0, 3000.0], [4000.0, 17000.0], [18000.0, 19000.0], [9000.0, 8000.0]])
OFF = np.array([300.0, -150.0])
IHC = HE + OFF


@dataclass(frozen=True)
class Size:
    size_px0: tuple[int, int] = (20000, 20000)
    mpp: float = 0.25


def bigwarp(rows, dimensions=2):
    lines = []
    for number, (active, moving, fixed) in enumerate(rows):
        sides = [*moving, *([0.0] if dimensions == 3 else []), *fixed, *([0.0] if dimensions == 3 else [])]
        cells = [f"Pt-{number}", active, *("Infinity" if value is None else repr(float(value)) for value in sides)]
        lines.append(",".join(f'"{cell}"' for cell in cells))
    return "\n".join(lines) + "\n"


def write(folder, text, name="marks.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(("unit", "factor"), [("px", 1.0), ("um", 0.25), ("mm", 0.00025)])
def test_bigwarps_pairs_come_back_in_px0_whatever_its_unit(tmp_path, unit, factor, dimensions):
    rows = [("true", moving * factor, fixed * factor) for moving, fixed in zip(IHC, HE, strict=True)]
    rows += [("false", HE[0], HE[0]), ("true", (None, None), HE[0] * factor)]
    path = write(tmp_path, bigwarp(rows, dimensions))
    found = read_landmarks("C1", str(path), he=Size(), ihc=Size(), unit=unit)
    np.testing.assert_allclose(found.he_px0, HE)
    np.testing.assert_allclose(found.ihc_px0, IHC)
    assert found.notes == ("2 rows were left out: not active, or placed on one slide only",)
    if unit != "um":
        assert np.array_equal(read_landmarks("C1", str(path), he=Size(), ihc=Size()).he_px0, found.he_px0)


def test_a_unit_that_could_be_two_is_asked_for_and_not_guessed(tmp_path):
    corner = [("true", point / 8, point / 8) for point in HE]
    path = write(tmp_path, bigwarp(corner))
    with pytest.raises(RegistrationError, match="may be px or um; name the CSV of `hepipe landmarks import --unit"):
        read_landmarks("C1", str(path), he=Size(), ihc=Size())


def test_the_he_slide_may_have_been_bigwarps_moving_picture(tmp_path):
    path = write(tmp_path, bigwarp([("true", he, ihc) for he, ihc in zip(HE, IHC, strict=True)]))
    found = read_landmarks("C1", str(path), he=Size(), ihc=Size(), fixed="ihc")
    np.testing.assert_allclose(found.he_px0, HE)


def test_qupaths_points_pair_by_name_and_other_objects_are_left_out(tmp_path):
    square = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}
    he = json.loads(qupath_geojson(["a", "b", "c", "lonely"], HE[:4]))
    he["features"].append({"type": "Feature", "geometry": square, "properties": {"objectType": "annotation"}})
    write(tmp_path, json.dumps(he), "one")
    write(tmp_path, qupath_geojson(["c", "a", "b"], IHC[[2, 0, 1]]), "two")
    found = read_landmarks("C1", f"{tmp_path / 'one'};{tmp_path / 'two'}")
    np.testing.assert_array_equal(found.he_px0, HE[:3])
    np.testing.assert_array_equal(found.ihc_px0, IHC[:3])
    assert len(found.notes) == 2


def test_one_points_annotation_of_qupath_pairs_by_order_and_says_so(tmp_path):
    def clicks(points, name):
        geometry = {"type": "MultiPoint", "coordinates": points.tolist()}
        return json.dumps([{"type": "Feature", "geometry": geometry, "properties": {"classification": {"name": name}}}])

    write(tmp_path, clicks(HE, "HE"), "one")
    write(tmp_path, clicks(IHC, "IHC"), "two")
    found = read_landmarks("C1", f"{tmp_path / 'one'};{tmp_path / 'two'}")
    np.testing.assert_array_equal(found.ihc_px0, IHC)
    assert "paired by their order" in found.notes[-1]
    write(tmp_path, clicks(IHC[:4], "IHC"), "two")
    with pytest.raises(RegistrationError, match="5 points without names on the H&E and 4 on the IHC"):
        read_landmarks("C1", f"{tmp_path / 'one'};{tmp_path / 'two'}")


def test_annotators_of_the_long_table_are_averaged_and_other_cases_left_out(tmp_path):
    lines = ["case,landmark,annotator,frame,x,y"]
    for number, (he, ihc) in enumerate(zip(HE, IHC, strict=True)):
        for annotator, off in (("a", 10.0), ("b", -10.0)):
            lines.append(f"C1,{number},{annotator},he,{he[0] + off},{he[1]}")
            lines.append(f"C1,{number},{annotator},ihc,{ihc[0]},{ihc[1] + off}")
    lines.append("C2,0,a,he,1,1")
    path = write(tmp_path, "\n".join(lines))
    found = read_landmarks("C1", str(path))
    np.testing.assert_allclose(found.he_px0, HE)
    np.testing.assert_allclose(found.ihc_px0, IHC)
    with pytest.raises(RegistrationError, match="none of the 2 cases"):
        read_landmarks("C3", str(path))


def test_a_spreadsheet_with_decimal_commas_reads_the_same(tmp_path):
    path = write(tmp_path, "x_he;y_he;x_ihc;y_ihc\n1,5;2;3;4\n50;6;70;8\n9;100;11;120\n")
    assert read_landmarks("C1", str(path)).he_px0[0, 0] == 1.5


def test_pairs_come_back_as_they_were_written(tmp_path):
    path = write(tmp_path, pairs_csv(HE + 0.25, IHC))
    found = read_landmarks("C1", str(path))
    np.testing.assert_array_equal(found.he_px0, HE + 0.25)
    np.testing.assert_array_equal(found.ihc_px0, IHC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("name,phone\nJane Doe,555\n", "no column x_he and no columns X and Y in a table of 2 columns"),
        ("x_he,y_he,x_ihc\n1,2,3\n", "no column y_ihc; x_he, y_he, x_ihc, y_ihc expected"),
        ("x_he,y_he,x_ihc,y_ihc\n1,2,3,4\n1,nan,3,4\n", "line 3, column y_he holds nan"),
        ("x_he,y_he,x_ihc,y_ihc\n1,2,3,4\n1,Jane,3,4\n", "line 3, column y_he holds no number"),
        (",X,Y\n1,2,3\n1,4,5\n", "line 3 repeats the id"),
        ('{"type": "FeatureCollection", "features": []}', "no point in the GeoJSON"),
        ('{"type": ', "line 1 of the GeoJSON is not readable"),
        ('"Pt-0","true","1","2","3"\n', "no column x_he"),
        ('"Pt-0","true","1","2","3","4"\n"Pt-1","true","1"\n', "line 2 has 3 columns"),
        ("case,landmark,x,y,frame\nC1,1,2,3,left\n", "column frame: `he` or `ihc` expected"),
    ],
)
def test_a_file_of_another_kind_is_named_by_place_and_never_by_content(tmp_path, text, message):
    path = write(tmp_path, text, "Jane_Doe.csv")
    with pytest.raises(RegistrationError, match=message.replace("(", r"\(")) as caught:
        read_listed("C1", path)
    assert "Jane" not in str(caught.value)
    assert "555" not in str(caught.value)


def test_a_point_with_two_partners_is_refused_and_a_repeated_pair_taken_once(tmp_path):
    twice = write(tmp_path, pairs_csv(HE[[0, 1, 2, 3, 4, 0]], IHC[[0, 1, 2, 3, 4, 0]]))
    assert len(read_landmarks("C1", str(twice)).he_px0) == len(HE)
    torn = write(tmp_path, pairs_csv(HE[[0, 1, 2, 3, 4, 0]], np.vstack([IHC, IHC[1] + 500])))
    with pytest.raises(RegistrationError, match="pairs 1 and 6 are one point on the H&E"):
        read_landmarks("C1", str(torn))


def test_two_pairs_are_too_few_and_three_give_a_similarity(tmp_path):
    with pytest.raises(RegistrationError, match="2 pairs found, at least 3 expected"):
        read_landmarks("C1", str(write(tmp_path, pairs_csv(HE[:2], IHC[:2]))))
    three = read_landmarks("C1", str(write(tmp_path, pairs_csv(HE[:3], IHC[:3]))))
    found = fit_landmarks(three, he_size_px0=(20000, 20000), he_mpp=0.25, ihc_mpp=0.25, grid_um=100.0)
    np.testing.assert_allclose(found(HE), IHC, atol=1e-6)
    notes = check_landmarks("C1", three, he=Size(), ihc=Size())
    assert notes == ["landmarks: 3 pairs give a similarity only; 6 an affine, 15 a spline"]


def test_exchanged_columns_show_by_the_slides_sizes():
    small = Size((2000, 2000), mpp=2.5)
    with pytest.raises(RegistrationError, match="exchanged"):
        check_landmarks("C1", Landmarks(IHC / 10, HE), he=Size(), ihc=small)
    assert check_landmarks("C1", Landmarks(HE, IHC / 10), he=Size(), ihc=small) == [
        "landmarks: 5 pairs give a similarity only; 6 an affine, 15 a spline"
    ]


def test_exchanged_columns_show_by_the_pixel_sizes_even_inside_both_slides():
    coarse = Size((20000, 20000), mpp=0.5)
    with pytest.raises(RegistrationError, match=r"exchanged \(sizes differ 4.00-fold"):
        check_landmarks("C1", Landmarks(HE / 2, HE), he=Size(), ihc=coarse)


def test_exchanged_columns_show_by_a_registration_that_was_found_without_them():
    found = Transform(translation(3000.0, -1500.0), 0.25, 0.25)
    inner = np.clip(HE, 2000, 16000)
    marks = Landmarks(inner, inner + 10 * OFF)
    assert not [note for note in check_landmarks("C1", marks, he=Size(), ihc=Size(), ihc_from_he=found)[1:] if note]
    with pytest.raises(RegistrationError, match="exchanged"):
        check_landmarks("C1", Landmarks(marks.ihc_px0, inner), he=Size(), ihc=Size(), ihc_from_he=found)


def test_one_point_beside_its_slide_is_a_slip_and_not_an_exchange():
    marks = Landmarks(HE, np.vstack([IHC[:4], [[-40.0, 9000.0]]]))
    assert "landmarks: 1 of 5 points lie outside the IHC slide" in check_landmarks("C1", marks, he=Size(), ihc=Size())


def test_points_far_outside_are_of_another_level_and_end_the_case():
    with pytest.raises(RegistrationError, match=r"pair 4 lies 2\.\d slide sizes outside the H&E slide"):
        check_landmarks("C1", Landmarks(HE * 3.5, IHC * 3.5), he=Size(), ihc=Size())


def test_a_misplaced_pair_is_named_by_its_number():
    rng = np.random.default_rng(3)
    he = rng.uniform(0, 20000, (12, 2))
    ihc = he + OFF + rng.normal(0, 10, he.shape)
    ihc[6] += 3000
    notes = check_landmarks("C1", Landmarks(he, np.clip(ihc, 0, 20000)), he=Size(), ihc=Size())
    assert len(notes) == 1
    assert "pair 7 lies" in notes[0]


def test_residuals_left_out_see_a_misplaced_pair_that_the_fit_would_follow():
    ihc = HE.copy()
    ihc[2] += (800.0, 0.0)
    off, typical = residuals_left_out(HE, ihc)
    assert off.argmax() == 2
    assert off[2] == pytest.approx(800.0)
    assert typical[2] == pytest.approx(0.0, abs=1e-6)


def test_the_named_kind_is_fitted_and_points_on_a_line_ask_for_more():
    size = {"he_size_px0": (20000, 20000), "he_mpp": 0.25, "ihc_mpp": 0.25, "grid_um": 500.0}
    marks = Landmarks(HE, HE @ np.array([[1.1, 0.1], [0.0, 0.9]]))
    affine = fit_landmarks(marks, **size, spec=LandmarksSpec(kind="affine"))
    np.testing.assert_allclose(affine(HE), marks.ihc_px0, atol=1e-6)
    assert fit_landmarks(marks, **size, spec=LandmarksSpec(kind="spline")).field_um is not None
    similar = fit_landmarks(marks, **size, spec=LandmarksSpec(kind="similarity"))
    assert np.abs(similar(HE) - marks.ihc_px0).max() > 100
    line = Landmarks(np.stack([HE[:, 0], HE[:, 0]], axis=1), np.stack([HE[:, 0], HE[:, 0]], axis=1) + 5.0)
    with pytest.raises(RegistrationError, match="near one line, which no affine follows"):
        fit_landmarks(line, **size, spec=LandmarksSpec(kind="affine"), case_id="C1")
    np.testing.assert_allclose(fit_landmarks(line, **size)(HE), HE + 5.0, atol=1e-6)
    assert any("near one line" in note for note in check_landmarks("C1", line, he=Size(), ihc=Size()))


def test_landmarks_that_contradict_the_registration_are_a_note():
    found = identity(fixed_mpp=0.25, moving_mpp=0.25)
    wrong = Transform(translation(9000.0, 9000.0), 0.25, 0.25)
    marks = Landmarks(HE, HE + 20)
    assert len(check_landmarks("C1", marks, he=Size(), ihc=Size(), ihc_from_he=found)) == 1
    notes = check_landmarks("C1", marks, he=Size(), ihc=Size(), ihc_from_he=wrong)
    assert any("from the registration" in note for note in notes)
