"""The table of the filters in docs/quality.md names every default limit with its number."""

import re
from pathlib import Path

from hepipe.specs.quality import QualitySpec

PAGE = Path(__file__).parents[3] / "docs" / "quality.md"


def test_every_default_limit_stands_in_the_row_of_its_measurement():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    for section in ("restained", "consecutive"):
        for name, limit in QualitySpec().limits_of(section).items():
            base = re.sub(r"_(he|ihc)$", "_*", name)
            row = next((one for one in rows if f"`{base}`" in one), None)
            assert row is not None, f"{base} has no row"
            cells = [cell.strip() for cell in row.split("|")]
            told = cells[4] if section == "restained" or cells[5] == "same" else cells[5]
            assert f"{limit.max:g}" in re.findall(r"\d+(?:\.\d+)?", told), (name, limit.max, told)
