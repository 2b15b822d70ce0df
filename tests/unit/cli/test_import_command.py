"""From a set on the disk to a data set's card, by the commands that a person types."""

import io
import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from hepipe.cli import dataset, imports, tiles
from hepipe.dataset.card import read_card
from hepipe.errors import ConfigError
from hepipe.stores.tables import TILES, read_provenance, read_table
from hepipe.stores.tiles import TileStore

app = typer.Typer()
dataset.register(app)
imports.register(app)
tiles.register(app)


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def tissue(seed: int, vector: tuple[float, float, float]) -> bytes:
    """A JPEG of blotches in one stain on white."""
    amount = np.random.default_rng(seed).random((16, 16)).repeat(8, 0).repeat(8, 1) ** 3
    pixels = (255 * 10 ** -(1.2 * amount[..., None] * np.array(vector))).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.fixture(scope="module")
def bci(tmp_path_factory):
    """A small BCI, imported, graded without limits and assembled."""
    folder = tmp_path_factory.mktemp("bci")
    for split, count in (("train", 6), ("test", 2)):
        for number in range(count):
            for stain, vector in (("HE", (0.65, 0.70, 0.29)), ("IHC", (0.27, 0.57, 0.78))):
                file = folder / "BCI" / stain / split / f"{number:05d}_{split}_{number % 2}{'+' * (number % 2)}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(tissue(number + 10 * (split == "test"), vector))
    (folder / "BCI/README").write_text("for non-commercial purposes")
    out = folder / "results/bci"
    said = run("import", "bci", folder / "BCI", "--out", out, "--preset", "bci_val", "--seed", 3, "--workers", 2)
    nothing = json.dumps({"limits": {"restained": {}, "consecutive": {}}, "alignment": {"drop": []}})
    table, verdict = out / "tiles/imported.parquet", out / "verdict/imported.parquet"
    run("grade", "--index", table, "--verdict", verdict, "--spec", nothing)
    run("assemble", "--folder", out, "--cases", "imported", "--index", out / "index.parquet", "--card", out / "c.json")
    return folder, out, said


def test_the_import_says_what_it_found_and_what_was_expected(bci):
    _, _, said = bci
    assert "bci train: 6 of 3,896" in said
    assert "warning: bci train: 6 pairs found, 3,896 expected" in said
    assert "he is kept as the bytes of 8 JPEG" in said
    assert "8 tiles of 128 px imported, 0 left out" in said


def test_the_card_has_counts_terms_and_warnings_of_the_import(bci):
    card = read_card(bci[1] / "c.json")
    assert {split: part.tiles for split, part in card.splits.items()} == {"train": 5, "val": 1, "test": 2}
    assert card.imported is not None
    assert card.imported["preset"] == "bci_val"
    assert "seed 3" in card.imported["division"]
    (terms,) = card.terms
    assert "non-commercial" in terms.line
    assert terms.texts == {"README": "for non-commercial purposes"}
    assert "bci test: 2 pairs found, 977 expected" in card.warnings
    assert any("cases unknown for 8 imported tiles: interval not computed" in text for text in card.warnings)


def test_the_store_holds_the_files_and_no_artefact_their_folder(bci):
    folder, out, _ = bci
    store = TileStore(out / "tiles/imported.zarr")
    row = read_table(out / "tiles/imported.parquet", TILES)[0]
    file = folder / "BCI/HE" / f"{row['tile_id']}.png"
    assert store.chunk("he", row["row_in_store"]).endswith(file.read_bytes())
    told = read_provenance(out / "tiles/imported.parquet")
    assert "path" not in told.spec
    assert str(folder) not in told.model_dump_json() + (out / "c.json").read_text()
    listed = (folder / "results/private/bci/imported.csv").read_text().splitlines()
    assert listed[:2] == ["tile_id,he,ihc", "test/00000_test_0,HE/test/00000_test_0.png,IHC/test/00000_test_0.png"]
    assert Image.open(out / "pictures/imported/contact.png").size[0] > 1_000


def test_a_second_loss_is_told(bci, tmp_path):
    lossy = json.dumps({"codec": "jpeg"})
    said = run("import", "bci", bci[0] / "BCI", "--out", tmp_path / "r/q", "--quarter", "--store", lossy)
    assert "those of JPEG files a second time" in said
    assert "second time" in str(read_provenance(tmp_path / "r/q/tiles/imported.parquet").told["warnings"])
    kept = run("import", "bci", bci[0] / "BCI", "--out", tmp_path / "r/k", "--store", lossy)
    assert "second time" not in kept


def test_a_list_is_compared_with_the_filters(bci, tmp_path):
    _, out, _ = bci
    (tmp_path / "clean.txt").write_text("00000_train_0\n00001_test_1+\n")
    said = run("dataset", "agreement", out, "--list", tmp_path / "clean.txt")
    assert "all: of 8 tiles both keep 2, the list alone 0, the filters alone 6, neither 0" in said
    assert json.loads((out / "agreement.json").read_text())["train"]["filters_only"] == 5


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("bcy",), "kind: Input should be 'bci'"),
        (("bci", "--preset", "mist4000"), "preset mist4000: kind bci has bci_paper, bci_val"),
        (("bci", "--scores", "s.csv"), "scores is an option of kind her2match, not of bci"),
        (("folder",), "mpp is missing: kind folder"),
        (("bci", "--spec", "[]"), "--spec is no JSON object"),
        (("bci", "--cases", "none.csv"), "import.cases: cannot be read"),
    ],
)
def test_a_persons_mistake_is_told_in_a_line(bci, tmp_path, words, text):
    with pytest.raises(ConfigError, match=text):
        run("import", words[0], bci[0] / "BCI", "--out", tmp_path / "o", *words[1:])
