import re
from pathlib import Path

import torch

DOCS = (Path(__file__).parents[3] / "docs" / "dataset-work.md").read_text(encoding="utf-8")


def test_the_code_of_the_docs_runs(make_index):
    index = make_index({"train": 9}, tile_px=32)
    blocks = re.findall(r"^```python\n(.*?)^```", DOCS, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        small = block.replace("results/cohort/index.parquet", str(index)).replace("256", "16").replace("1000", "5")
        exec(compile(small, "dataset-work.md", "exec"), names)
    assert names["steps"].start == 5
    assert isinstance(names["items"]["he"], torch.Tensor)
    assert names["brightest"].shape == (9, 3)


def test_every_command_of_the_docs_is_there():
    from hepipe.cli.cohort import cohort_app

    named = set(re.findall(r"^hepipe cohort ([a-z-]+)", DOCS, re.MULTILINE))
    commands = {command.name or command.callback.__name__ for command in cohort_app.registered_commands}
    assert named == commands
