import hashlib

import numpy as np
import pytest
from onnx_writer import block, convolution, number
from pydantic import ValidationError

from hepipe.errors import ConfigError, WeightsError
from hepipe.quality.learned import Learned
from hepipe.quality.verdict import grade
from hepipe.specs.learned import LearnedSpec
from hepipe.specs.quality import QualitySpec

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)


def outside_tensor(name, shape, path):
    """Values that stand in another file."""
    entries = {"location": path, "offset": "0", "length": str(4 * int(np.prod(shape)))}
    pairs = b"".join(block(13, block(1, key) + block(2, value)) for key, value in entries.items())
    return b"".join(number(1, side) for side in shape) + number(2, 1) + block(8, name) + pairs + number(14, 1)


def by_color(side=1):
    """Class 0, 1, 2 where red, green, blue is strongest."""
    weights = np.zeros((3, 3, side, side), np.float32)
    weights[range(3), range(3)] = 1 / side**2
    return weights, np.zeros(3, np.float32)


def section(content, **over):
    return LearnedSpec.model_validate(
        {
            "file": "net.onnx",
            "sha256": hashlib.sha256(content).hexdigest(),
            "mpp": 0.5,
            "classes": ["tissue", "fold", "pen"],
            **over,
        }
    )


@pytest.fixture
def network(tmp_path):
    def make(content, *, tile_px=64, **over):
        (tmp_path / "net.onnx").write_bytes(content)
        return Learned(section(content, **over), tile_px=tile_px, mpp=0.5, folder=tmp_path)

    return make


def striped(side=64, green=0.25, blue=0.5):
    tile = np.full((side, side, 3), RED, np.uint8)
    tile[: round(side * green)] = GREEN
    tile[side - round(side * blue) :] = BLUE
    return tile


PLAIN = np.full((64, 64, 3), RED, np.uint8)


def test_shares_are_those_of_the_classes_in_each_stain(network):
    measured = network(convolution(*by_color()))(striped(), PLAIN, 0.5)
    assert measured == {
        "learned_tissue_he": 0.25,
        "learned_fold_he": 0.25,
        "learned_pen_he": 0.5,
        "learned_tissue_ihc": 1.0,
        "learned_fold_ihc": 0.0,
        "learned_pen_ihc": 0.0,
    }


def test_a_network_of_one_stain_measures_that_stain_alone(network):
    measured = network(convolution(*by_color()), stains=["he"])(striped(), PLAIN, 0.5)
    assert set(measured) == {"learned_tissue_he", "learned_fold_he", "learned_pen_he"}


@pytest.mark.parametrize(
    ("mpp", "given"),
    [(2.0, {"multiple": 32}), (0.25, {"multiple": 1}), (0.5, {"px": 128}), (0.5, {"px": 24}), (1.5, {"px": 32})],
)
def test_resolution_padding_and_windows_leave_the_shares(network, mpp, given):
    learned = network(convolution(*by_color()), mpp=mpp, tile_px=96, input=given)
    measured = learned(striped(96), striped(96, 0.0, 1.0), 0.5)
    assert measured["learned_fold_he"] == pytest.approx(0.25, abs=0.03)
    assert measured["learned_pen_he"] == pytest.approx(0.5, abs=0.03)
    assert measured["learned_pen_ihc"] == 1.0


def test_an_output_on_a_coarser_grid_is_read_too(network):
    measured = network(convolution(*by_color(4), stride=4))(striped(), PLAIN, 0.5)
    assert [measured[f"learned_{name}_he"] for name in ("tissue", "fold", "pen")] == [0.25, 0.25, 0.5]


def test_pixels_are_prepared_as_the_section_says(network):
    weights, bias = by_color()
    # Class 1 where the network's first channel is above 0.5 after mean and std, class 0 elsewhere, class 2 never.
    weights[:] = 0
    weights[1, 0] = 1.0
    bias[:] = (0.5, 0.0, -100.0)
    tile = striped()
    share = {}
    for order in ("rgb", "bgr"):
        learned = network(convolution(weights, bias), input={"order": order, "range": [-1, 1], "mean": [-0.2, 0, 0]})
        share[order] = learned(tile, PLAIN, 0.5)["learned_fold_he"]
    # Red 200 is 0.57 + 0.2 in range -1 to 1; the first channel of bgr is blue, the half of the tile.
    assert (share["rgb"], share["bgr"]) == (0.25, 0.5)
    scaled = network(convolution(weights, bias), input={"range": [-1, 1], "mean": [-0.2, 0, 0], "std": [2, 1, 1]})
    assert scaled(tile, PLAIN, 0.5)["learned_fold_he"] == 0.0


def test_threads_share_one_network(network):
    from concurrent.futures import ThreadPoolExecutor

    learned = network(convolution(*by_color()))
    tiles = [striped(green=part / 16, blue=0.25) for part in range(8)] * 4
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda tile: learned(tile, PLAIN, 0.5)["learned_fold_he"], tiles))
    assert found == [round(part / 16, 3) for part in range(8)] * 4


def test_its_shares_drop_tiles_like_any_other_measurement(network):
    content = convolution(*by_color())
    learned = network(content)
    spec = QualitySpec.model_validate(
        {
            "limits": {"restained": {}, "consecutive": {}},
            "alignment": {"drop": []},
            "learned": section(content, drop={"fold": 0.05}).model_dump(),
        }
    )
    tiles = [
        {"tile_id": name, "section": kind, "problem": "", "measurements": learned(tile, PLAIN, 0.5)}
        for name, kind, tile in (
            ("a", "restained", PLAIN),
            ("b", "restained", striped()),
            ("c", "consecutive", striped()),
        )
    ]
    assert [row["reason"] for row in grade(tiles, spec)] == ["", "learned_fold_he", "learned_fold_he"]


def test_what_stands_in_provenance_changes_with_the_measurements_alone(network):
    plain, dropping = network(convolution(*by_color())), network(convolution(*by_color()), drop={"fold": 0.05})
    finer = network(convolution(*by_color()), mpp=1.0)
    assert plain.inputs == dropping.inputs
    assert plain.inputs["learned"] == finer.inputs["learned"] == plain.spec.sha256
    assert plain.inputs["learned_settings"] != finer.inputs["learned_settings"]


@pytest.mark.parametrize(
    ("over", "said"),
    [
        ({"file": "../net.onnx"}, "file"),
        ({"file": "/net.onnx"}, "file"),
        ({"file": "net.pt"}, "file"),
        ({"sha256": "abc"}, "sha256"),
        ({"classes": ["tissue", "tissue"]}, "each name once"),
        ({"classes": ["tissue", "a fold"]}, "small letters"),
        ({"drop": {"bubble": 0.1}}, "no class bubble; there are tissue, fold, pen"),
        ({"drop": {"fold": 1.5}}, "less than or equal to 1"),
        ({"input": {"std": [1, 0, 1]}}, "std must be above 0"),
        ({"input": {"range": [1, 1]}}, "two different ends"),
        ({"stains": ["he", "he"]}, "each once"),
    ],
)
def test_a_mistake_in_the_section_is_named(over, said):
    with pytest.raises(ValidationError, match=said):
        section(b"", **over)


def test_the_file_must_be_in_the_weights_folder_and_be_the_one_named(tmp_path, network):
    content = convolution(*by_color())
    spec = section(content)
    with pytest.raises(WeightsError, match=r"weights file 'net.onnx': not in"):
        Learned(spec, tile_px=64, mpp=0.5, folder=tmp_path / "empty")
    with pytest.raises(WeightsError, match=r"SHA-256 [0-9a-f]{64} found, 0{64} expected"):
        network(content, sha256="0" * 64)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.onnx").symlink_to(tmp_path / "net.onnx")
    with pytest.raises(WeightsError, match="a link that leads out"):
        Learned(spec, tile_px=64, mpp=0.5, folder=tmp_path / "weights")


def test_a_network_that_keeps_tensors_elsewhere_is_refused(tmp_path, network):
    secret = tmp_path / "secret.bin"
    secret.write_bytes(np.ones(9, np.float32).tobytes())
    weights, bias = by_color()
    with pytest.raises(ConfigError, match=r"net.onnx: keeps tensors in other files"):
        network(convolution(weights, bias, initial=outside_tensor("w", weights.shape, str(secret))))


@pytest.mark.parametrize(
    "content", [b"", b"no network at all", convolution(*by_color())[:60], convolution(*by_color(), op="Blur")]
)
def test_a_file_that_opencv_cannot_run_is_a_clear_error(network, content):
    with pytest.raises(ConfigError, match=r"quality.learned: net.onnx: OpenCV .* cannot run it"):
        network(content)


def test_an_output_of_another_shape_is_a_clear_error(network):
    with pytest.raises(ConfigError, match=r"shape \[1, 3, 64, 64\] for 64 × 64 px; \[1, 2 \(one for each of classes\)"):
        network(convolution(*by_color()), classes=["tissue", "fold"])
    with pytest.raises(ConfigError, match=r"or both sides a whole factor less"):
        network(convolution(*by_color(3)))
    with pytest.raises(ConfigError, match="no numbers"):
        network(convolution(*by_color(), op="Log", inputs=("x",)), input={"range": [-2, -1]})


def test_a_resolution_that_cannot_be_meant_is_a_clear_error(network):
    with pytest.raises(ConfigError, match="is mpp right"):
        network(convolution(*by_color()), tile_px=4096, mpp=0.01)
