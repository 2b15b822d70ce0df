import json

import numpy as np
import pytest
import torch
from by_hand_sets import FEW, hepipe, with_card
from PIL import Image

from hepipe.dataset.tiles import SplitTiles, rgb_from_tensor, tensor_from_rgb
from hepipe.inference.by_hand import crop_for, padded
from hepipe.models.catalog import catalog
from hepipe.models.finished import build_method, load_state, read_state
from hepipe.models.resolved import read_resolved


@pytest.fixture
def data(make_index):
    return with_card(make_index({"train": 4, "val": 1, "test": 2}, tile_px=64))


def train(data, out, model="pixel_map", *words):
    code, said = hepipe("train", model, "--data", data, "--preset", "tiny", "--out", out, *FEW, *words)
    assert code == 0, said
    return out


@pytest.fixture
def run(data, tmp_path):
    return train(data, tmp_path / "run")


@pytest.fixture
def he(tmp_path):
    """Pictures of three sizes and formats, and what lies about beside pictures."""
    folder = tmp_path / "he"
    (folder / "sub").mkdir(parents=True)
    (folder / "notes.txt").write_text("x")
    random = np.random.default_rng(3)
    for name, sides in (("a.png", (64, 64)), ("b.jpg", (50, 130)), ("c.tif", (20, 33)), ("d.png", (64, 64))):
        Image.fromarray(random.integers(90, 230, (*sides, 3)).astype(np.uint8)).save(folder / name)
    return folder


def refused(*words):
    code, said = hepipe(*words)
    assert code == 2, said
    return said


def pixels(path):
    with Image.open(path) as picture:
        return np.array(picture)


def method_of(run):
    method = build_method(read_resolved(run / "config.json"), {})
    load_state(method, read_state(run / "model.safetensors"), what="model")
    method.train(False)
    return method


def test_pictures_of_any_size_are_stained_under_their_own_names(run, he, tmp_path):
    code, said = hepipe("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")
    assert code == 0, said
    assert "2 other files and folders of " in said
    assert "4 of 4 pictures stained" in said
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "c.png", "d.png", "provenance.json"]
    method = method_of(run)
    for name in ("a.png", "c.tif"):
        seen = pixels(he / name)
        expected = rgb_from_tensor(method.stain(tensor_from_rgb(seen)[None], seeds=torch.tensor([0]))[0])
        np.testing.assert_array_equal(pixels(out / f"{name[0]}.png"), expected)
    record = json.loads((out / "provenance.json").read_text())
    assert record["provenance"]["inputs"].keys() == {"model", "he"}
    assert record["provenance"]["told"]["terms"][0]["line"] == "non-commercial"
    assert record["pictures"].keys() == {"a.png", "b.jpg", "c.tif", "d.png"}
    assert record["failed"] == {}
    assert str(tmp_path) not in (out / "provenance.json").read_text()


def test_a_model_of_fixed_multiples_takes_odd_sizes_by_crops_and_padding(data, he, tmp_path):
    run = train(data, tmp_path / "unet", "pix2pix")
    code, said = hepipe("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")
    assert code == 0, said
    assert pixels(tmp_path / "out/b.png").shape == (50, 130, 3)
    assert pixels(tmp_path / "out/c.png").shape == (20, 33, 3)
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    assert {name: facts["tile_px"] for name, facts in record["pictures"].items()} == {
        "a.png": 64,
        "b.jpg": 32,
        "c.tif": 32,
        "d.png": 64,
    }
    assert "--tile-px 50: pix2pix tiny takes multiples of 32 px" in refused(
        "predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "other", "--tile-px", 50
    )


def test_options_that_halve_a_picture_more_often_are_kept_to_when_staining(data, he, tmp_path):
    run = train(data, tmp_path / "deep", "pix2pix", "--set", "downs=6", "--set", "crop_px=64")
    Image.new("RGB", (96, 96)).save(he / "e.png")
    code, said = hepipe("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")
    assert code == 0, said
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    assert {facts["tile_px"] for facts in record["pictures"].values()} == {64}
    assert pixels(tmp_path / "out/e.png").shape == (96, 96, 3)
    assert "--tile-px 32: pix2pix tiny takes multiples of 64 px, such as 64" in refused(
        "predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "other", "--tile-px", 32
    )


def test_crops_are_the_largest_that_fit_and_padding_only_what_none_fits():
    entry = catalog()["pix2pix"]
    assert crop_for(entry, "paper", (1024, 700)) == 512
    assert crop_for(entry, "paper", (3000, 3000)) == 1024
    assert crop_for(entry, "paper", (100, 3000)) == 256
    assert crop_for(entry, "paper", (3000, 3000), wanted_px=256) == 256
    picture = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    wide = padded(picture, 5)
    assert wide.shape == (5, 5, 3)
    np.testing.assert_array_equal(wide[:4, :3], picture)
    np.testing.assert_array_equal(wide[4, :3], picture[3])
    assert padded(picture, 3) is picture


def test_bad_pictures_are_listed_and_stop_nothing(run, he, tmp_path):
    whole = (he / "a.png").read_bytes()
    (he / "cut.png").write_bytes(whole[:300])
    (he / "empty.jpg").write_bytes(b"")
    Image.fromarray(np.zeros((8, 8, 4), np.uint8)).save(he / "alpha.png")
    (he / "bell\x07.png").write_bytes(whole)
    (he / "A.JPG").write_bytes(whole)
    (tmp_path / "secret.png").write_bytes(whole)
    (he / "link.png").symlink_to(tmp_path / "secret.png")
    code, said = hepipe("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")
    assert code == 1
    assert "4 of 10 pictures stained" in said
    assert "not stained: cut.png: no sound 64 x 64 px picture" in said
    assert "not stained: empty.jpg: no readable picture" in said
    assert "not stained: alpha.png: mode RGBA, 8-bit RGB expected" in said
    assert r"not stained: 'bell\x07.png': control characters in its name; rename it" in said
    assert "not stained: a.png: its virtual picture would have the name of that of A.JPG" in said
    assert "not stained: link.png: a link out of the folder" in said
    assert len(json.loads((tmp_path / "out/provenance.json").read_text())["failed"]) == 6


def test_what_is_there_is_not_stained_again_unless_its_picture_has_changed(run, he, tmp_path):
    words = ("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")
    assert hepipe(*words)[0] == 0
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(he / "d.png")
    (tmp_path / "out/b.png").unlink()
    assert hepipe(*words)[0] == 0
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert {name for name in after if after[name] != times[name]} == {"b.png", "d.png"}


def test_pictures_of_one_size_go_together_without_being_others(run, he, tmp_path):
    for batch in (1, 3):
        words = ("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / f"by{batch}", "--batch", batch)
        assert hepipe(*words)[0] == 0
    for name in "abcd":
        one, three = (pixels(tmp_path / f"by{batch}/{name}.png").astype(int) for batch in (1, 3))
        assert np.abs(one - three).max() <= 1


def test_the_resolution_must_be_told_and_be_the_runs(run, he, tmp_path):
    words = ("predict", run, "--he", he, "--out", tmp_path / "out")
    assert "--mpp is missing: the µm per px of the pictures, which files do not say; run pixel_map-tiny-s0 was" in (
        refused(*words)
    )
    said = refused(*words, "--mpp", 0.25)
    assert "--mpp 0.25: run pixel_map-tiny-s0 was trained at 0.5 µm/px" in said
    assert "resample the pictures to 0.5 µm/px (0.5 times their sides)" in said
    assert not (tmp_path / "out").exists()
    assert hepipe(*words, "--mpp", 0.49)[0] == 0


def test_a_folder_of_other_pictures_or_of_another_run_is_not_written_into(run, he, data, tmp_path):
    words = ("--he", he, "--mpp", 0.5, "--out")
    assert "holds 'a.png', 'b.jpg', 'c.tif' already; name a new folder" in refused("predict", run, *words, he)
    assert hepipe("predict", run, *words, tmp_path / "out")[0] == 0
    other = train(data, tmp_path / "other", "pixel_map", "--seed", 4)
    said = refused("predict", other, *words, tmp_path / "out")
    assert "holds pictures of another prediction (seed 0 there, 4 here; model " in said


def test_tiles_of_a_data_set_are_stained_by_their_ids(run, data, tmp_path):
    code, said = hepipe("predict", run, "--he", data, "--split", "test", "--out", tmp_path / "out")
    assert code == 0, said
    tiles, method = SplitTiles(data / "index.parquet", "test"), method_of(run)
    for place, row in enumerate(tiles.rows):
        seen = tensor_from_rgb(tiles.rgb("he", place))[None]
        expected = rgb_from_tensor(method.stain(seen, seeds=torch.tensor([0]))[0])
        np.testing.assert_array_equal(pixels(tmp_path / f"out/{row.tile_id.replace('/', '__')}.png"), expected)
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    assert record["provenance"]["inputs"]["he"] == "abc"
    assert hepipe("predict", run, "--he", data / "index.parquet", "--out", tmp_path / "all")[0] == 0
    assert len(list((tmp_path / "all").glob("*.png"))) == 7


def test_pictures_are_brought_to_the_colours_that_a_run_has_seen(data, he, tmp_path):
    run = train(data, tmp_path / "run", "identity", "--set", "normalize=reinhard")
    assert hepipe("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")[0] == 0
    assert np.abs(pixels(tmp_path / "out/a.png").astype(int) - pixels(he / "a.png")).max() > 2
    record = json.loads((tmp_path / "out/provenance.json").read_text())
    assert record["provenance"]["told"]["normalization"]["he"]["method"] == "reinhard"


def test_wrong_words_are_named(run, data, he, tmp_path):
    out = ("--out", tmp_path / "out")
    assert "predict: --he is missing" in refused("predict", run, *out)
    assert "no run; give the folder that `hepipe train` wrote" in refused("predict", he, "--he", he, *out)
    assert "nothing there; a folder of pictures expected" in refused("predict", run, "--he", tmp_path / "none", *out)
    assert "no picture lies in it" in refused("predict", run, "--he", he / "sub", "--mpp", 0.5, *out)
    assert "--split: for data sets" in refused("predict", run, "--he", he, "--split", "test", *out)
    assert "a data set says its own µm/px" in refused("predict", run, "--he", data, "--mpp", 0.5, *out)
    assert "--split tset: train, val, test expected" in refused("predict", run, "--he", data, "--split", "tset", *out)
    assert "--device tpu: cpu or cuda expected" in refused("predict", run, "--he", he, "--device", "tpu", *out)
    assert "it is one tile store" in refused("predict", run, "--he", data / "tiles/c.zarr", *out)
    (run / "model.safetensors").unlink()
    assert "this run has no finished model yet" in refused("predict", run, "--he", he, *out)


def test_weights_of_another_run_are_not_used(data, run, he, tmp_path):
    other = train(data, tmp_path / "other", "mean_colour")
    (other / "config.json").write_bytes((run / "config.json").read_bytes())
    said = refused("predict", other, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out")
    assert "weights and record of two runs (model mean_colour in model.safetensors, pixel_map in config.json" in said


def test_crops_and_padding_put_every_px_back_where_it_was(data, he, tmp_path):
    run = train(data, tmp_path / "run", "identity")
    words = ("predict", run, "--he", he, "--mpp", 0.5, "--out", tmp_path / "out", "--tile-px", 48)
    assert hepipe(*words)[0] == 0
    for name in ("a.png", "c.tif"):
        np.testing.assert_array_equal(pixels(tmp_path / f"out/{name[0]}.png"), pixels(he / name))
