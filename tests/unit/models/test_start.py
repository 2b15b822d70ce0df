"""What a run starts from: authors' checkpoints of every model, finished models, and what a config says of them."""

import argparse
import os
import zipfile

import pytest
import torch
from torch import nn

from hepipe.config import load_config
from hepipe.errors import ConfigError, StoreError, WeightsError
from hepipe.models.catalog import catalog, check_run
from hepipe.models.finished import finished_state, write_finished
from hepipe.models.resolved import resolve_run, zoo_module
from hepipe.models.start import Start, put_start, read_start, released_networks
from hepipe.networks.released import spectral_name
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.stores.provenance import Provenance
from hepipe.weights.checkpoint import read_groups
from hepipe.weights.start import start_files

MODELS = sorted(catalog())


def tiny(model):
    module = zoo_module(model)
    torch.manual_seed(1)
    return module.build(module.PRESETS["tiny"], {})


def resolved(model, init_from=None, preset="tiny"):
    side = next(side for side in range(64, 2049) if catalog()[model].takes(side, preset))
    training = TrainingSpec(crop_px=side)
    return resolve_run(
        "r", RunSpec(model=model, preset=preset, dataset="set", init_from=init_from or {}, training=training)
    )


def unet_name_of(ours):
    """The nested name of a U-Net's tensor, from `ups.2.conv.weight` and its like; five levels."""
    way, level, layer, leaf = ours.split(".")
    level = int(level)
    begin = "model.model" + "".join([".1.model", *[".3.model"] * (level - 1)][: max(0, level)])
    place = {("downs", "conv"): 1, ("downs", "norm"): 2, ("ups", "conv"): 5, ("ups", "norm"): 6}[way, layer]
    if level == 0:
        place = {"downs": 0, "ups": 3}[way]
    elif level == 4:
        place = {("downs", "conv"): 1, ("ups", "conv"): 3, ("ups", "norm"): 4}[way, layer]
    return f"{begin}.{place}.{leaf}"


def hooked(state):
    """Spectral norm as torch's hook leaves it."""
    raw = {name.removesuffix(".u") for name in state if name.endswith(".u")}
    theirs = {"weight": "weight_orig", "u": "weight_u", "v": "weight_v"}
    named = {}
    for name, value in state.items():
        begin, _, leaf = name.rpartition(".")
        named[f"{begin}.{theirs.get(leaf, leaf)}" if begin in raw else name] = value
    return named


def filtered(state, *numbers):
    """With the kernels that authors keep as buffers."""
    return {**state, **{f"model.{number}.filt": torch.ones(1, 1, 4, 4) for number in numbers}}


def with_judge(state):
    last = max(int(name.split(".")[1]) for name in state)
    return {
        name.replace(f"model.{last}.", "final_conv.").replace("model.", "enc."): value
        for name, value in hooked(state).items()
    }


def as_authors_name(model, network, state):
    """A network's tensors under the names of its authors' file, as the reference values show them."""
    if network == "heads":
        return {name.replace("mlps.", "mlp_"): value for name, value in state.items()}
    if model == "pix2pix" and network == "generator":
        return {unet_name_of(name): value for name, value in state.items()}
    if model in ("cut", "cut_pyramid"):
        return filtered(state, 3, 7, 20)
    if model == "asp":
        return with_judge(state) if network == "discriminator" else filtered(hooked(state), 7, 11)
    if model == "cssp2p":
        if network == "discriminator":
            return with_judge(state)
        both = "double_conv.double_conv"
        parts = {"project": "", "shrink": "up.1.", "conv1": f"{both}.0.", "conv2": f"{both}.3."}
        named = {"encoder.model.fc.weight": torch.ones(3), "encoder.model.fc.bias": torch.ones(3)}
        n_levels = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("decoder.levels."))
        for name, value in state.items():
            words = name.split(".")
            if words[0] == "encoder":
                named[f"encoder.model.{'.'.join(words[1:])}"] = value
            elif words[1] == "head":
                named[f"decoder.layers.{2 * n_levels}.conv.{words[2]}"] = value
            else:
                place = 2 * int(words[2]) + (words[3] != "project")
                named[f"decoder.layers.{place}.{parts[words[3]]}{words[4]}"] = value
        return named
    return state


EASY = ("asp", "cssp2p", "cut", "cut_pyramid", "pix2pix", "pyramid_pix2pix")


@pytest.mark.parametrize("model", MODELS)
def test_a_zoo_file_loads_its_authors_checkpoints_or_says_why_not(model):
    module, method = zoo_module(model), tiny(model)
    networks = released_networks(module)
    if not networks:
        assert not method.players() or module.NOT_RELEASED
        return
    assert all(isinstance(getattr(method, network), nn.Module) for network in networks)
    with pytest.raises(WeightsError, match=r"missing: .*unexpected: a\.strangers"):
        module.from_released({"a.strangers": torch.ones(1)}, network=networks[0], config=module.PRESETS["tiny"])


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("model", EASY)
def test_every_tensor_of_an_authors_file_arrives(model, wrapped, tmp_path):
    module, method = zoo_module(model), tiny(model)
    for network in released_networks(module):
        state = getattr(method, network).state_dict()
        theirs = as_authors_name(model, network, state)
        path = tmp_path / f"{network}.pth"
        content = {"state_dict": {f"module.{name}": value for name, value in theirs.items()}, "epoch": 9}
        torch.save(content if wrapped else theirs, path)
        start = read_start(resolved(model), {network: str(path)})
        assert start.tensors.keys() == {f"{network}.{name}" for name in state}
        assert all(torch.equal(start.tensors[f"{network}.{name}"], value) for name, value in state.items())
        fresh = zoo_module(model).build(module.PRESETS["tiny"], {})
        assert network not in put_start(fresh, start)
        loaded = getattr(fresh, network).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_a_file_says_by_its_tensors_which_network_it_holds(tmp_path):
    method = tiny("cut")
    networks = (("netG", method.generator), ("netD", method.discriminator))
    state = {f"{name}.{one}": value for name, net in networks for one, value in net.state_dict().items()}
    torch.save({"model": state}, tmp_path / "both.pth")
    with pytest.raises(ConfigError, match=r"holds more than one network that fits; choose: generator=both.pth#model, "):
        read_start(resolved("cut"), {"*": str(tmp_path / "both.pth")})
    start = read_start(resolved("cut"), {"discriminator": str(tmp_path / "both.pth")})
    assert {name.partition(".")[0] for name in start.tensors} == {"discriminator"}
    torch.save(method.generator.state_dict(), tmp_path / "one.pth")
    assert read_start(resolved("cut"), {"*": str(tmp_path / "one.pth")}).told.keys() == {"generator"}


def test_a_checkpoint_of_another_preset_names_it(tmp_path):
    module = zoo_module("cut")
    other = module.build(module.PRESETS["paper"].model_copy(update={"width": 4, "head_width": 4}), {})
    torch.save(other.discriminator.state_dict(), tmp_path / "c.pth")
    with pytest.raises(
        WeightsError, match=r"c.pth fits cut with preset paper or fastcut, not tiny as it is here; .* of another sh"
    ):
        read_start(resolved("cut"), {"*": str(tmp_path / "c.pth")})


def test_one_of_several_groups_is_chosen_by_its_name(tmp_path):
    state = tiny("cut").generator.state_dict()
    ema = {name: value + 1 for name, value in state.items()}
    torch.save({"model": state, "ema": ema, "opt": argparse.Namespace(lr=1)}, tmp_path / "c.pth")
    with pytest.raises(ConfigError, match=r"choose: generator=c\.pth#model, generator=c\.pth#ema"):
        read_start(resolved("cut"), {"*": str(tmp_path / "c.pth")})
    start = read_start(resolved("cut"), {"generator": f"{tmp_path / 'c.pth'}#ema"})
    assert torch.equal(start.tensors["generator.model.1.weight"], ema["model.1.weight"])
    with pytest.raises(ConfigError, match=r"has no group 'emma'; there are model of .* tensors, ema of "):
        read_start(resolved("cut"), {"generator": f"{tmp_path / 'c.pth'}#emma"})


class Runs:
    def __reduce__(self):
        return os.system, ("exit 1",)


def test_a_file_with_code_is_refused_and_not_run(tmp_path):
    torch.save({"a": Runs()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match=r"evil.pth: holds (posix|nt)\.system, which only running code can build"):
        read_groups(tmp_path / "evil.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match=r"save the tensors alone, such as .* or loaded.state_dict\(\) of a whole"):
        read_groups(tmp_path / "whole.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsError, match=r"text.pth: not a torch file"):
        read_groups(tmp_path / "text.pth")
    torch.save({"epoch": 3, "losses": [1.0]}, tmp_path / "empty.pth")
    with pytest.raises(WeightsError, match=r"empty.pth: holds no tensors by name"):
        read_groups(tmp_path / "empty.pth")
    (tmp_path / "a.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(WeightsError, match=r"a.safetensors: not a safetensors file"):
        read_groups(tmp_path / "a.safetensors")


def test_a_file_that_unpacks_to_far_more_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(4_000_000))
    with pytest.raises(WeightsError, match=r"that unpack to 4.0 MB, as no file of torch's does"):
        read_groups(tmp_path / "bomb.pth")


def test_options_beside_the_tensors_do_not_stand_in_the_way(tmp_path):
    torch.save({"net": {"a": torch.ones(1)}, "opt": argparse.Namespace(gpu_ids=[0])}, tmp_path / "c.pth")
    assert list(read_groups(tmp_path / "c.pth")) == ["net"]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = tiny("cut").generator.state_dict()
    state["model.1.bias"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match=r"nan.pth: generator.model.1.bias holds values that are no finite number"):
        read_start(resolved("cut"), {"*": str(tmp_path / "nan.pth")})


def finished(tmp_path, model, preset="tiny"):
    module = zoo_module(model)
    spec = {"model": model, "preset": preset}
    provenance = Provenance(artefact="model", subject="earlier", spec=spec)
    write_finished(tmp_path / "model.safetensors", finished_state(module.build(module.PRESETS[preset], {})), provenance)
    return str(tmp_path / "model.safetensors")


def test_a_finished_model_fits_its_own_networks_only(tmp_path):
    path = finished(tmp_path, "cut")
    assert read_start(resolved("cut"), {"*": path}).inputs.keys() == {"init:*"}
    assert read_start(resolved("cut_pyramid"), {"*": path}).lines == ["starts from run earlier (cut tiny)"]
    one = read_start(resolved("cut"), {"generator": path})
    assert {name.partition(".")[0] for name in one.tensors} == {"generator"}
    with pytest.raises(StoreError, match=r"not those of asp tiny; .* run earlier \(cut tiny\): holds another model's"):
        read_start(resolved("asp"), {"*": path})
    with pytest.raises(StoreError, match=r"not those of cut small; start from a run of this model whose preset"):
        read_start(resolved("cut", preset="small"), {"*": path})
    with pytest.raises(
        ConfigError, match="cut and run earlier share no judge; there are discriminator, generator, heads"
    ):
        read_start(resolved("cut"), {"judge": path})


def test_a_file_that_was_replaced_since_the_run_was_resolved_is_refused(tmp_path):
    path = finished(tmp_path, "pixel_map")
    run = resolved("pixel_map", {"*": path})
    read_start(run, {"*": path})
    (tmp_path / "model.safetensors").unlink()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        finished(tmp_path, "pixel_map")
    with pytest.raises(WeightsError, match=r"model.safetensors is another file than when run r was resolved"):
        read_start(run, {"*": path})


def test_a_start_is_a_part_of_what_a_run_is(tmp_path):
    path = finished(tmp_path, "pixel_map")
    assert resolved("pixel_map", {"*": path}).digest != resolved("pixel_map").digest
    assert str(tmp_path) not in resolved("pixel_map", {"*": path}).model_dump_json()


@pytest.mark.parametrize("model", [model for model in MODELS if tiny(model).averages()])
def test_an_average_begins_where_what_it_averages_begins(model):
    method = tiny(model)
    names = {id(module): name for name, module in method.named_modules()}
    for average in method.averages().values():
        state = {f"{names[id(average.of)]}.{name}": value + 3 for name, value in average.of.state_dict().items()}
        put_start(method, Start(tensors=state))
        ours, theirs = average.into.state_dict(), average.of.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def config(**runs):
    base = {"dataset": "set", "model": "pixel_map", "preset": "tiny", "training": {"crop_px": 64}}
    return load_config(
        {"datasets": {"set": {"synth": {"patients": 2}}}, "runs": {n: base | r for n, r in runs.items()}}
    )


def test_a_config_whose_runs_start_from_nothing_is_refused(tmp_path):
    check_run(config(a={}, b={"init_from": "run:a"}), "b")
    with pytest.raises(ConfigError, match=r"runs.b.init_from: no run 'c'; there are a, b"):
        check_run(config(a={}, b={"init_from": "run:c"}), "b")
    with pytest.raises(ConfigError, match=r"runs.a.init_from: run b itself depends on a"):
        check_run(config(a={"init_from": "run:b"}, b={"init_from": {"map": "run:a"}}), "a")
    with pytest.raises(ConfigError, match=r"runs.a.init_from: nothing at .*gone.pth"):
        check_run(config(a={"init_from": str(tmp_path / "gone.pth")}), "a")


def test_runs_of_every_fold_start_from_those_of_their_own():
    data = {"set": {"synth": {"patients": 6}, "splits": {"folds": 3}}}
    base = {"dataset": "set", "model": "pixel_map", "preset": "tiny", "training": {"crop_px": 64}, "fold": "all"}
    made = load_config({"datasets": data, "runs": {"a": base, "b": base | {"init_from": "run:a"}}})
    assert made.runs["b-f2"].init_from == {"*": "run:a-f2"}
    runs = {"a": base, "b": base | {"fold": 1, "init_from": "run:a-f0"}}
    with pytest.raises(ConfigError, match=r"runs.b.init_from: run a-f0 has fold 0, this one 1"):
        load_config({"datasets": data, "runs": runs})


def test_files_are_found_by_what_a_person_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("HEPIPE_WEIGHTS", str(tmp_path / "w"))
    (tmp_path / "w").mkdir()
    (tmp_path / "w/mine.pth").write_text("x")
    assert start_files({"*": "weights:mine.pth"}) == {"*": str(tmp_path / "w/mine.pth")}
    with pytest.raises(WeightsError, match=r"weights:\.\./mine.pth leads out of"):
        start_files({"*": "weights:../mine.pth"})
    assert start_files({"*": "run:a"}, runs=tmp_path) == {"*": str(tmp_path / "a/model.safetensors")}
    assert start_files({"*": "run:a"}) == {}
    for name in ("latest_net_G.pth", "20_net_G.pth", "20_net_D.pth", "net_G.txt"):
        (tmp_path / "w" / name).write_text("x")
    assert start_files({"*": str(tmp_path / "w")}) == {
        "generator": str(tmp_path / "w/latest_net_G.pth"),
        "discriminator": str(tmp_path / "w/20_net_D.pth"),
    }
    (tmp_path / "w/latest_net_G.pth").rename(tmp_path / "w/40_net_G.pth")
    with pytest.raises(
        WeightsError, match=r"generator of epochs 20, 40, none called latest; choose one: generator=FILE"
    ):
        start_files({"*": str(tmp_path / "w")})
    with pytest.raises(ConfigError, match=r"generator is given the folder .*; give the file, or the folder alone"):
        start_files({"generator": str(tmp_path / "w")})


def test_the_hooks_names_are_those_that_ours_are_made_from():
    state = tiny("asp").generator.state_dict()
    assert {spectral_name(name) for name in hooked(state)} == state.keys()
    assert any(name.endswith("weight_orig") for name in hooked(state))
