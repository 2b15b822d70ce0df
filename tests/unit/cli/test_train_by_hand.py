import json

import pytest
import torch
from by_hand_sets import FEW, hepipe, with_card
from safetensors.torch import load_file

from hepipe.models.finished import read_finished_provenance
from hepipe.models.resolved import read_resolved
from hepipe.models.zoo import cut, pix2pix


@pytest.fixture
def data(make_index):
    return with_card(make_index({"train": 4, "val": 2}, tile_px=32))


def refused(*words):
    code, said = hepipe(*words)
    assert code == 2, said
    return said


def trained(data, out, *words):
    code, said = hepipe("train", "pix2pix", "--data", data, "--preset", "tiny", "--out", out, *FEW, *words)
    assert code == 0, said
    return said


def test_a_model_and_a_data_set_make_a_finished_run(data, tmp_path):
    said = trained(data, tmp_path / "run")
    assert "pix2pix tiny on set: 4 training tiles of 32 px" in said
    assert "crops of 32 px: pix2pix tiny takes multiples of 32 px, tiles are 32 px" in said
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.json", "model.safetensors", "history.parquet", "samples"} <= names
    record = read_resolved(tmp_path / "run/config.json")
    assert (record.name, record.training.n_steps, record.training.crop_px) == ("pix2pix-tiny-s0", 2, 32)
    assert record.provenance.inputs == {"dataset": "abc"}
    told = read_finished_provenance(tmp_path / "run/model.safetensors").told
    assert told["terms"][0]["line"] == "non-commercial"


def test_an_index_names_a_data_set_as_well_as_its_folder_and_the_folder_of_a_run_has_a_default(
    data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("train", "pixel_map", "--data", data / "index.parquet", "--preset", "tiny", "--seed", "3", *FEW)
    assert hepipe(*words)[0] == 0
    assert (tmp_path / "runs/pixel_map-tiny-s3/model.safetensors").is_file()


def test_the_same_command_again_has_nothing_to_do(data, tmp_path):
    trained(data, tmp_path / "run")
    before = (tmp_path / "run/model.safetensors").stat().st_mtime_ns
    assert "trained to its end; nothing to do" in trained(data, tmp_path / "run")
    assert (tmp_path / "run/model.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_another_run_is_refused_with_the_difference(data, make_index, tmp_path):
    trained(data, tmp_path / "run")
    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", "--out", tmp_path / "run")
    said = refused(*words, *FEW, "--set", "l1_weight=3", "--seed", "1")
    assert "holds another run: config.l1_weight is 100.0 there and 3.0 here; seed is 0 there and 1 here" in said
    other = with_card(make_index({"train": 4}, tile_px=32, folder="other"), fingerprint="xyz")
    said = refused("train", "pix2pix", "--data", other, "--preset", "tiny", "--out", tmp_path / "run", *FEW)
    assert "dataset is set there and other here; dataset_fingerprint is abc there and xyz here" in said


def test_a_run_that_ended_before_it_learnt_anything_gives_its_folder_to_the_next(data, tmp_path):
    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", "--out", tmp_path / "run", *FEW)
    code, said = hepipe(*words, "--set", "lr=1e30")
    assert code == 2, said
    assert "became nan" in said
    assert "if there is one, is from before" in said
    said = trained(data, tmp_path / "run")
    assert "done; stain with" in said
    assert read_resolved(tmp_path / "run" / "config.json").config["lr"] == pix2pix.PRESETS["tiny"].lr
    said = refused(*words, "--set", "lr=0.1")
    assert "holds another run: config.lr is 0.0002 there and 0.1 here" in said


def test_a_part_that_is_no_run_is_named(data, tmp_path):
    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", "--device", "cpu")
    assert f"--part encoder={tmp_path}: no run; give the folder" in refused(*words, "--part", f"encoder={tmp_path}")


def test_a_model_that_is_built_for_one_side_gets_a_crop_of_that_side(make_index, tmp_path):
    larger = with_card(make_index({"train": 2, "val": 1}, tile_px=128))
    code, said = hepipe("train", "bcistainer", "--data", larger, "--preset", "tiny", "--out", tmp_path / "run", *FEW)
    assert code == 0, said
    assert "crops of 64 px: bcistainer tiny takes multiples of 8 px, tiles are 128 px; --set crop_px=… takes" in said
    assert "--set options.full_size: 64 px, but training crops are 128 px" in refused(
        "train", "bcistainer", "--data", larger, "--preset", "tiny", "--set", "crop_px=128", "--device", "cpu"
    )


def test_a_folder_with_other_files_is_not_written_into(data, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    said = refused("train", "pix2pix", "--data", data, "--preset", "tiny", "--out", tmp_path / "mine", *FEW)
    assert "holds 'thesis.txt' and no run; name a new folder by --out" in said


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("n_stepz=3", "--set n_stepz: neither pix2pix nor training has it; did you mean n_steps?"),
        ("n_steps", "--set n_steps: KEY=VALUE expected"),
        ("gan=foo", r"options.gan: Input should be 'vanilla', 'lsgan'"),
        ("mpp=abc", "training.mpp: Input should be a valid number"),
        ("mpp=0.1", "tiles are stored at 0.5 µm/px; a view at 0.1 would be finer"),
        ("n_steps=0", "training.n_steps: Input should be greater than 0"),
        ("select.metric=best", "training.select.metric: Input should be 'last'"),
        ("crop_px=64", "crop_px is 64, but tiles of set are 32 px at 0.5 µm/px; leave it out, or --set crop_px=32"),
        ("crop_px=20", "--set training.crop_px: 20 px, but pix2pix tiny takes multiples of 32 px, such as 32"),
        ("downs=6", "--set training.crop_px: 32 px, but with options.downs: 6 the networks take multiples of 64 px"),
    ],
)
def test_a_wrong_setting_is_named(data, tmp_path, setting, message):
    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", "--device", "cpu", "--out", tmp_path / "run")
    assert message in refused(*words, "--set", setting)
    assert not (tmp_path / "run").exists()


def test_tiles_smaller_than_what_a_preset_takes_name_those_that_fit(data):
    said = refused("train", "pix2pix", "--data", data)
    assert "pix2pix paper takes multiples of 256 px, but tiles of set are 32 px at 0.5 µm/px" in said
    assert "choose --preset tiny (multiples of 32 px), or cut larger tiles (tiling.tile_px)" in said


def test_what_is_no_data_set_says_what_to_give(tmp_path, make_index):
    index = make_index({"train": 1})
    assert "nothing there; give the folder of a data set" in refused("train", "cut", "--data", tmp_path / "none")
    said = refused("train", "cut", "--data", index.parent / "tiles/c.zarr")
    assert "it is one tile store; give the folder of the data set" in said
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_text("")
    assert "becomes a data set by `import`" in refused("train", "cut", "--data", tmp_path / "pictures")
    assert "not a readable card" in refused("train", "cut", "--data", index.parent)
    with_card(index)
    alone = with_card(make_index({"test": 1}, folder="alone"))
    assert "split train holds no tile" in refused("train", "cut", "--data", alone)
    (index.parent / "sections.json").write_text("{}")
    (index.parent / "tiles").rename(tmp_path / "gone")
    assert "a packed data set, which holds no pixels" in refused("train", "cut", "--data", index.parent)


def test_missing_words_are_named(data):
    assert "train: --data, the folder of a data set such as results/cohort is missing" in refused("train", "cut")
    assert "train: MODEL is missing; models are asp, " in refused("train", "--data", data)
    assert "give MODEL and --data, or for a run of the config all of --config, --index" in refused("train")
    assert "no model 'pix2pox'; there are asp, " in refused("train", "pix2pox", "--data", data)
    assert "--preset nano: pix2pix has paper, released, " in refused(
        "train", "pix2pix", "--data", data, "--preset", "nano"
    )
    assert "--index: for runs of the config" in refused(
        "train", "pix2pix", "--data", data, "--index", data / "index.parquet"
    )


@pytest.mark.parametrize(
    ("need", "message"),
    [
        ("dab_mask", "needs the DAB mask of each tile, which tiles/c.zarr of split train do not hold"),
        ("score", "needs the HER2 score of each tile, which 2 of 2 tiles of split train lack (cases c)"),
    ],
)
def test_tiles_that_lack_what_a_model_needs_stop_it_before_anything(make_index, tmp_path, monkeypatch, need, message):
    from dataclasses import replace

    from hepipe.models import catalog

    bare = with_card(make_index({"train": 2}, tile_px=32, masks=False, score=None, folder="bare"))
    needy = replace(catalog.catalog()["pixel_map"], needs={"*": (need,)})
    monkeypatch.setattr(catalog, "catalog", lambda: {"pixel_map": needy})
    words = ("--data", bare, "--preset", "tiny", "--out", tmp_path / "run", *FEW)
    assert f"pixel_map tiny {message}" in refused("train", "pixel_map", *words)
    assert not (tmp_path / "run").exists()


def test_without_scores_the_preset_that_needs_none_is_named(make_index, tmp_path):
    bare = with_card(make_index({"train": 2}, tile_px=64, score=None, folder="bare"))
    words = ("--data", bare, "--preset", "tiny", "--out", tmp_path / "run", *FEW)
    assert "assemble it again; or choose preset without_levels" in refused("train", "bcistainer", *words)


def test_a_finished_run_is_where_another_begins(data, tmp_path):
    trained(data, tmp_path / "a")
    said = trained(data, tmp_path / "b", "--init-from", tmp_path / "a", "--set", "lr=1e-30")
    assert "starts from run pix2pix-tiny-s0 (pix2pix tiny)" in said
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    # The rate is nil, so that only running statistics move.
    assert all(torch.equal(a[name], b[name]) for name in a if name.endswith("weight"))
    told = read_finished_provenance(tmp_path / "b/model.safetensors")
    record = read_resolved(tmp_path / "b/config.json")
    assert told.inputs["init:*"] == record.init_from["*"].sha256 == told.told["init_from"]["*"]["sha256"]
    assert len(told.told["terms"]) == 1


def test_an_authors_checkpoint_starts_the_networks_that_it_holds(data, tmp_path):
    method = pix2pix.Pix2pix(pix2pix.PRESETS["tiny"])
    judge = {f"module.{name}": value for name, value in method.discriminator.state_dict().items()}
    torch.save({"netD": judge, "epoch": 3}, tmp_path / "judge.pth")
    said = trained(data, tmp_path / "run", "--init-from", tmp_path / "judge.pth", "--set", "lr=1e-30")
    assert "the discriminator starts from netD of a checkpoint of its authors' form, SHA-256 " in said
    assert "untrained at the start: generator" in said
    state = load_file(tmp_path / "run/model.safetensors")
    assert torch.equal(state["discriminator.model.0.weight"], method.discriminator.state_dict()["model.0.weight"])
    notes = read_finished_provenance(tmp_path / "run/model.safetensors").told["notes"]
    assert notes[-1] == "untrained at the start: generator"


def test_a_folder_of_checkpoints_is_read_by_the_letters_of_its_files(data, tmp_path):
    method = cut.Cut(cut.PRESETS["tiny"])
    for letter, network in (("G", "generator"), ("D", "discriminator")):
        state = getattr(method, network).state_dict()
        torch.save(state, tmp_path / f"latest_net_{letter}.pth")
        torch.save({}, tmp_path / f"20_net_{letter}.pth")
    heads = {name.replace("mlps.", "mlp_"): value for name, value in method.heads.state_dict().items()}
    torch.save(heads, tmp_path / "latest_net_F.pth")
    words = ("--data", data, "--preset", "tiny", "--out", tmp_path / "run", *FEW, "--init-from", tmp_path)
    code, said = hepipe("train", "cut", *words)
    assert code == 0, said
    assert "untrained" not in said
    inputs = read_finished_provenance(tmp_path / "run/model.safetensors").inputs
    assert {"init:generator", "init:discriminator", "init:heads"} <= inputs.keys()


def test_a_checkpoint_of_another_model_lists_what_does_not_fit(data, tmp_path):
    torch.save(cut.Cut(cut.PRESETS["tiny"]).generator.state_dict(), tmp_path / "latest_net_G.pth")
    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", *FEW, "--out", tmp_path / "run", "--init-from")
    said = refused(*words, tmp_path / "latest_net_G.pth")
    assert "latest_net_G.pth (one dictionary of " in said
    assert "does not fit pix2pix tiny; nearest: pix2pix " in said
    assert "missing: " in said
    assert "unexpected: " in said
    assert "its networks are not those of" not in said
    code, said = hepipe("train", "cut", "--data", data, "--preset", "tiny", *FEW, "--out", tmp_path / "cut")
    assert code == 0, said
    said = refused(*words, tmp_path / "cut")
    assert "its networks are not those of pix2pix tiny" in said
    assert "run cut-tiny-s0 (cut tiny): holds another model's weights: missing " in said


def test_a_start_that_is_not_there_or_not_finished_is_named(data, tmp_path):
    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", *FEW, "--out", tmp_path / "run", "--init-from")
    assert "init_from: nothing at " in refused(*words, tmp_path / "none.pth")
    (tmp_path / "half").mkdir()
    (tmp_path / "half/config.json").write_text("{}")
    assert "is a run without model.safetensors: it has not finished" in refused(*words, tmp_path / "half")
    (tmp_path / "half/config.json").unlink()
    assert "neither model.safetensors of a run nor files like latest_net_G.pth" in refused(*words, tmp_path / "half")
    assert "by hand give the run's folder" in refused(*words, "run:a")


def test_a_baseline_of_ours_takes_no_checkpoint_and_one_that_fits_none_at_all(data, tmp_path):
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pth")
    words = ("--data", data, "--preset", "tiny", *FEW, "--out", tmp_path / "run", "--init-from")
    said = refused("train", "pixel_map", *words, tmp_path / "a.pth")
    assert "pixel_map takes finished models of ours only: it is a baseline of ours" in said
    words = ("--data", data, *FEW, "--out", tmp_path / "mean")
    assert hepipe("train", "mean_colour", *words)[0] == 0
    words = ("--data", data, *FEW, "--out", tmp_path / "run", "--init-from", tmp_path / "mean")
    assert "mean_colour learns in one pass over the tiles and starts from nothing" in refused(
        "train", "mean_colour", *words
    )


def test_a_killed_training_goes_on(data, tmp_path, monkeypatch):
    from hepipe.training import train

    def killed(*args, **kwargs):
        raise RuntimeError("killed")

    words = ("train", "pix2pix", "--data", data, "--preset", "tiny", "--out", tmp_path / "run", *FEW)
    words += ("--set", "checkpoint_every=1")
    monkeypatch.setattr(train, "write_finished", killed)
    with pytest.raises(RuntimeError, match="killed"):
        hepipe(*words)
    monkeypatch.undo()
    code, said = hepipe(*words)
    assert code == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["model"] == "pix2pix"
    assert "goes on from step 2" in said
