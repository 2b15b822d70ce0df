"""The same slides, sections and transforms give the same fingerprint, however a data set is made."""

import json
import shutil

import pytest
from test_cli_tiles import OPEN, TILING, Folder, run

from hepipe.dataset.card import read_card
from hepipe.dataset.diff import diff_datasets
from hepipe.dataset.verify import verify_dataset
from hepipe.geometry import identity
from hepipe.specs.tiling import TilingSpec
from hepipe.stores.arrays import write_registered
from hepipe.stores.cases import read_checked, read_stains, write_checked, write_stains
from hepipe.stores.tables import INDEX, TILES, VERDICTS, read_provenance, read_table, write_table
from hepipe.stores.tiles import TileWriter

CASES = ("c1", "c2")


def begin(root) -> Folder:
    folder = Folder(root)
    folder.case("c2", "1+", seed=2)
    return folder


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """Made with one worker and without a stop."""
    folder = begin(tmp_path_factory.mktemp("quiet"))
    for case_id in CASES:
        folder.chain(case_id)
    folder.assemble(*CASES)
    return folder


def card(folder: Folder):
    return read_card(folder.root / "dataset.json")


def test_any_number_of_workers_gives_the_same_fingerprint(quiet, tmp_path):
    folder = begin(tmp_path)
    for case_id in CASES:
        folder.chain(case_id, workers=2)
    folder.assemble(*CASES[::-1])
    assert card(folder).made_of == card(quiet).made_of
    assert card(folder).fingerprint == card(quiet).fingerprint
    assert diff_datasets(quiet.root, folder.root).is_empty


def test_a_case_that_was_killed_while_it_was_cut_ends_in_the_same_fingerprint(quiet, tmp_path, monkeypatch):
    folder = begin(tmp_path)
    whole = TileWriter.append

    def killed(self, row, chunks):
        if len(self.rows) == 5:
            raise KeyboardInterrupt
        return whole(self, row, chunks)

    inputs = folder.inputs("c2")
    root = folder.root
    run("stains", "estimate", *inputs, "--stains", root / "stains/c2.json")
    outputs = ["--tiles", root / "tiles/c2.zarr", "--index", root / "tiles/c2.parquet"]
    small = json.dumps({"tiles_per_shard": 2})
    options = ["--stains", root / "stains/c2.json", *outputs, "--spec", TILING, "--store", small]
    with monkeypatch.context() as patched:
        patched.setattr(TileWriter, "append", killed)
        with pytest.raises((KeyboardInterrupt, AssertionError, SystemExit)):
            run("tile", *inputs, *options)
    assert not (root / "tiles/c2.zarr").exists()
    assert list((root / "tiles").glob(".c2.zarr*")), "what was committed stays"
    run("tile", *inputs, *options, "--workers", 2)
    run("grade", "--index", root / "tiles/c2.parquet", "--verdict", root / "verdict/c2.parquet", "--spec", OPEN)
    folder.chain("c1")
    folder.assemble(*CASES)
    assert card(folder).fingerprint == card(quiet).fingerprint
    assert verify_dataset(root, deep=True).mismatches == ()


def test_the_order_of_rows_in_tables_is_no_part_of_it(quiet, tmp_path):
    root = shutil.copytree(quiet.root, tmp_path / "set")
    for room, schema in (("tiles", TILES), ("verdict", VERDICTS)):
        path = root / room / "c1.parquet"
        write_table(read_table(path, schema)[::-1], path, schema, read_provenance(path))
    folder = Folder.__new__(Folder)
    folder.root = root
    folder.assemble(*CASES)
    assert card(folder).fingerprint == card(quiet).fingerprint
    index = root / "index.parquet"
    write_table(read_table(index, INDEX)[::-1], index, INDEX, read_provenance(index))
    assert verify_dataset(root).mismatches == ()


def test_a_chain_that_is_whole_verifies_to_its_pixels(quiet):
    done = verify_dataset(quiet.root, deep=True)
    assert done.mismatches == ()
    assert done.deep == len(read_table(quiet.root / "index.parquet", INDEX))


@pytest.mark.parametrize("part", ["transforms", "slides", "sections", "stains"])
def test_a_chain_made_otherwise_has_another_fingerprint_and_names_the_part(quiet, tmp_path, part):
    root = shutil.copytree(quiet.root, tmp_path / "set")
    folder = Folder.__new__(Folder)
    folder.root = root
    spec = TILING
    if part == "transforms":
        moved = identity(fixed_mpp=2.0, moving_mpp=2.0)
        moved.affine[0, 2] = 1.0
        path = root / "registered/c1.zarr"
        back = identity(fixed_mpp=2.0, moving_mpp=2.0)
        back.affine[0, 2] = -1.0
        made = read_checked(root / "checked/c1.json").provenance.model_copy(update={"artefact": "registered"})
        write_registered(path, made, ihc_from_he=moved, he_from_ihc=back, summary={})
    elif part == "slides":
        record = read_checked(root / "checked/c1.json")
        other = record.ihc.model_copy(update={"content_sha256": "another"})
        write_checked(root / "checked/c1.json", record.model_copy(update={"ihc": other}))
    elif part == "sections":
        spec = TilingSpec.model_validate_json(TILING).model_copy(update={"min_tissue_frac": 0.61}).model_dump_json()
    elif part == "stains":
        record = read_stains(root / "stains/c1.json")
        other = record.ihc.model_copy(update={"white": (250.0, 250.0, 250.0)})
        write_stains(root / "stains/c1.json", record.model_copy(update={"ihc": other}))
    shutil.rmtree(root / "tiles/c1.zarr")
    outputs = ["--tiles", root / "tiles/c1.zarr", "--index", root / "tiles/c1.parquet"]
    run("tile", *folder.inputs("c1"), "--stains", root / "stains/c1.json", *outputs, "--spec", spec)
    run("grade", "--index", root / "tiles/c1.parquet", "--verdict", root / "verdict/c1.parquet", "--spec", OPEN)
    folder.assemble(*CASES)
    before, after = card(quiet), card(folder)
    assert before.fingerprint != after.fingerprint
    differ = {name for name, value in before.made_of.parts.items() if after.made_of.parts[name] != value}
    assert part in differ
    assert differ <= {part, "tiles", "splits"}
