import numpy as np
import pytest
from typer.testing import CliRunner

from hepipe.cli.cohort import cohort_app
from hepipe.dataset.cohort import cohort_array
from hepipe.dataset.conversion import convert_cohort
from hepipe.dataset.schedule import Scheduler
from hepipe.errors import ConfigError
from hepipe.specs.tiling import StoreSpec
from hepipe.stores.codecs import Jxl
from hepipe.stores.tiles import TileStore


def test_the_converted_set_holds_the_same_tiles_in_the_other_codec(make_cohort, tmp_path):
    index, _ = make_cohort()
    (index.parent / "dataset.json").write_text("{}")
    words = ["convert", "--index", index, "--folder", tmp_path / "other", "--codec", "jxl", "--workers", "2"]
    done = CliRunner().invoke(cohort_app, [str(word) for word in words])
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.output.splitlines()[-1] == "3 stores in jxl"
    other = tmp_path / "other" / "index.parquet"
    assert other.read_bytes() == index.read_bytes()
    assert (tmp_path / "other" / "dataset.json").read_text() == "{}"
    assert isinstance(TileStore(tmp_path / "other" / "tiles" / "a.zarr").layouts["he"].codec, Jxl)
    for name in ("he", "ihc", "dab_mask"):
        np.testing.assert_array_equal(cohort_array(other, name).compute(), cohort_array(index, name).compute())


def test_what_is_finished_is_left_alone_and_another_store_is_not_overwritten(make_cohort, tmp_path):
    index, _ = make_cohort()
    folder = tmp_path / "other"
    convert_cohort(index, folder, StoreSpec(codec="jxl"), Scheduler(1))
    before = (folder / "tiles" / "a.zarr" / "zarr.json").stat().st_mtime_ns
    assert convert_cohort(index, folder, StoreSpec(codec="jxl"), Scheduler(1)) == 3
    assert (folder / "tiles" / "a.zarr" / "zarr.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="stands there already"):
        convert_cohort(index, index.parent, StoreSpec(codec="jxl"), Scheduler(1))


def test_a_codec_with_loss_is_refused_before_anything_is_written(make_cohort, tmp_path):
    index, _ = make_cohort()
    with pytest.raises(ConfigError, match=r"jpeg changes the pixels of tiles/a\.zarr"):
        convert_cohort(index, tmp_path / "other", StoreSpec(codec="jpeg"), Scheduler(1))
    assert not (tmp_path / "other").exists()
