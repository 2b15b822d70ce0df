"""The slide sheet of ACROBAT, the public set of unregistered H&E and IHC slides of breast cancer.

Its table `df_acrobat_meta.csv` has a line per slide: `anon_id`, which repeats over the column `set`, `stain` (HE, ER,
PGR, HER2, KI67), `filename` and `mpp_lvl_0`. The set states no HER2 scores and keeps its landmarks to itself.
"""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

from hepipe.errors import ConfigError
from hepipe.geometry import MPP_RANGE
from hepipe.sheet import REQUIRED

NEEDED = ("anon_id", "set", "stain", "filename")
COLUMNS = (*REQUIRED, "mpp_he", "mpp_ihc")


def write_acrobat_sheet(meta: Path, folder: Path, out: Path, *, marker: str) -> tuple[int, int]:
    """Pair each patient's H&E slide with the one of a marker, for the files that are there.

    Args:
        meta: The set's table.
        folder: Searched for the slides, subfolders included.
        out: The slide sheet; paths in it are relative to its folder.
        marker: Stain that is paired with H&E, such as HER2.

    Returns:
        How many pairs were written, and how many patients of the table lack a file of either stain.

    Raises:
        ConfigError: The table misses a column, or no pair is complete.
    """
    with meta.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    missing = [name for name in NEEDED if not lines or name not in lines[0]]
    if missing:
        raise ConfigError(f"table {meta}: no column {', '.join(missing)}; the set's df_acrobat_meta.csv is expected")
    files = {path.name: path for path in sorted(folder.rglob("*")) if path.is_file()}
    patients: dict[str, dict[str, dict[str, str]]] = {}
    for line in lines:
        patients.setdefault(f"{line['set']}-{line['anon_id']}", {})[line["stain"].upper()] = line
    rows = []
    for patient, stains in patients.items():
        he, ihc = stains.get("HE"), stains.get(marker.upper())
        if he is None or ihc is None or he["filename"] not in files or ihc["filename"] not in files:
            continue
        rows.append(
            {
                "case_id": f"{patient}-{marker}",
                "patient_id": patient,
                "he": os.path.relpath(files[he["filename"]], out.parent),
                "ihc": os.path.relpath(files[ihc["filename"]], out.parent),
                "marker": marker,
                "her2_score": "",
                "section": "consecutive",
                "mpp_he": _mpp(he),
                "mpp_ihc": _mpp(ihc),
            }
        )
    if not rows:
        raise ConfigError(f"table {meta}: no patient has both an HE and a {marker} file in {folder}")
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.{os.getpid()}")
    with beside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(beside, out)
    return len(rows), len(patients) - len(rows)


def _mpp(line: dict[str, str]) -> str:
    """The table's µm per px at level 0 where it states a plausible one."""
    try:
        value = float(line.get("mpp_lvl_0", ""))
    except ValueError:
        return ""
    low, high = MPP_RANGE
    return f"{value:.6g}" if math.isfinite(value) and low <= value <= high else ""
