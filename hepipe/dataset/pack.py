"""What a data set is made again from, in a few files without pixels: transforms, settings, decisions, splits, card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hepipe.dataset.card import DatasetCard, read_card
from hepipe.dataset.cases import IMPORTED
from hepipe.dataset.fingerprint import Fingerprint
from hepipe.errors import ConfigError, StoreError
from hepipe.stores.arrays import read_registered, whole, write_registered
from hepipe.stores.tables import INDEX, read_provenance, read_table, write_table

SECTION_OF = {
    "checked": "slides",
    "registered": "registration",
    "tissue": "tissue",
    "stains": "stains",
    "tiles": "tiling",
    "verdict": "quality",
}
"""Stage to the config's name of its section."""
READ_ME = """\
# {name}

Fingerprint `{fingerprint}`, {n_kept} tiles of {n_cases} cases. There are no pixels here.

- `registered/`: where each point of the H&E slide lies on the IHC slide, a case each. With

      datasets:
        {name}: {{sheet: slides.tsv, transforms: THIS FOLDER}}

  in the config they are taken in place of registering, once the slides have the content that they were found on.
- `sections.json`: the config section of each stage, and the cases that it was used for.
- `index.parquet`: every tile of the data set with its split and the hashes of its pixels, without measurements.
- `curated.csv`, where people decided about tiles: each decision and what became of it. It can be named in
  `curation.decisions`.
- `funnel.json`: what each step dropped.
- `dataset.json`: the card, with what the fingerprint is of, part by part and case by case.

`hepipe dataset diff` compares a data set that was made from this with the card here.
"""


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        name: Of the data set.
        cases: Whose transform is there.
        files: How many.
        nbytes: Of all of them.
    """

    name: str
    cases: int
    files: int
    nbytes: int


def pack_dataset(folder: Path, out: Path) -> Packed:
    """Write what a data set is made again from into a new folder, whole or not at all.

    Args:
        folder: With card, index and `registered/`.
        out: To write.

    Raises:
        ConfigError: Something stands at `out`.
        StoreError: No card, no index, or a transform that is not the one of the fingerprint.
    """
    if out.exists():
        raise ConfigError(f"{out}: stands there already; name a folder that does not exist")
    card = read_card(folder / "dataset.json")
    if card.made_of is None:
        raise StoreError(f"{folder / 'dataset.json'}: does not say what its fingerprint is of; run assemble again")
    # Measurements are nine tenths of an index; tiles that are cut again are measured again.
    rows = [{**row, "measurements": {}} for row in read_table(folder / "index.parquet", INDEX)]
    with whole(out) as beside:
        n_cases = _transforms(folder, beside, card.made_of)
        _write(beside / "sections.json", json.dumps(_sections(card, card.made_of), indent=1) + "\n")
        write_table(rows, beside / "index.parquet", INDEX, read_provenance(folder / "index.parquet"))
        for name in ("dataset.json", "funnel.json", "curated.csv"):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, beside / name)
        facts = {"name": card.name, "fingerprint": card.fingerprint, "n_kept": card.n_kept, "n_cases": n_cases}
        _write(beside / "README.md", READ_ME.format(**facts))
        files = [path for path in beside.rglob("*") if path.is_file()]
        return Packed(card.name, n_cases, len(files), sum(path.stat().st_size for path in files))


def _transforms(folder: Path, out: Path, made: Fingerprint) -> int:
    """Write the transforms anew: what a stranger's folder holds beside them does not travel."""
    count = 0
    for case_id, parts in made.cases.items():
        if not parts.transforms:
            continue
        found = read_registered(folder / "registered" / f"{case_id}.zarr")
        if found.digest != parts.transforms:
            raise StoreError(
                f"{folder / 'registered' / case_id}.zarr: not the transform that the fingerprint was taken of; "
                "`hepipe dataset verify` says what else has changed"
            )
        write_registered(
            out / "registered" / f"{case_id}.zarr",
            found.provenance,
            ihc_from_he=found.ihc_from_he,
            he_from_ihc=found.he_from_ihc,
            summary=found.summary,
            evidence=found.evidence,
        )
        count += 1
    return count


def _sections(card: DatasetCard, made: Fingerprint) -> dict[str, Any]:
    """The config's sections; a list where cases were made with different ones."""
    by_name: dict[str, dict[str, list[str]]] = {}
    for case_id, parts in made.cases.items():
        for stage, key in parts.sections.items():
            name = "import" if (case_id, stage) == (IMPORTED, "tiles") else SECTION_OF.get(stage, stage)
            by_name.setdefault(name, {}).setdefault(key, []).append(case_id)
    sections: dict[str, Any] = {
        name: [{"cases": cases, "section": made.sections[key]} for key, cases in sorted(found.items())]
        for name, found in sorted(by_name.items())
    }
    splits: Mapping[str, Any] = made.sections[made.splits]
    return {
        "dataset": card.name,
        "fingerprint": card.fingerprint,
        "hepipe": made.version,
        **sections,
        "splits": [{"cases": list(made.cases), "section": splits}],
        "curation": made.curation,
    }


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
