import re
from pathlib import Path

import numpy as np
import pytest
from small_stores import tissue

from hepipe.specs.tiling import StoreSpec

DOCS = (Path(__file__).parents[3] / "docs/tile-store.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [10, 3])
def test_the_ten_lines_of_the_docs_read_a_store(make, count):
    (block,) = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    lines = block.partition("def read_tile")[2].strip().splitlines()
    assert len(lines) <= 10
    assert "hepipe" not in block
    said: dict = {}
    exec(block, said)
    store = make(count=count)
    for row, tile in enumerate(tissue(count)):
        np.testing.assert_array_equal(said["read_tile"](store, "he", row), tile)


def test_every_codec_and_setting_stands_in_the_docs():
    table = DOCS.split("## Bytes")[0]
    for codec in StoreSpec.model_fields["codec"].annotation.__args__:
        assert f"| `{codec}` |" in table
    for name in StoreSpec.model_fields:
        assert name == "revision" or name in DOCS
