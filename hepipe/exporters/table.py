"""The index as CSV, with a dictionary of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hepipe.exporters.cards import record_of, travelling
from hepipe.exporters.growing import Growing, Row, as_csv
from hepipe.exporters.selection import COLUMNS, Selection
from hepipe.exporters.shards import file_digest
from hepipe.stores.tables import INDEX

PREFIX = "m_"
"""Of the columns of measurements, so that none meets a column of the index."""
_KINDS = {"string": "text", "int32": "whole number", "int64": "whole number", "double": "number", "float": "number"}


def export_csv(selection: Selection, out: Path) -> dict[str, int]:
    """Write `index.csv`, a row a tile, and `columns.csv`, a row a column.

    Returns:
        Rows and columns.

    Raises:
        ConfigError: Something else stands in the folder.
        StoreError: The disk fails.
    """
    measured = selection.measurements()
    names = [*COLUMNS, *(f"{PREFIX}{name}" for name in measured)]

    def write(_: int) -> Iterator[Sequence[Row]]:
        rows = []
        for row in selection.rows:
            facts = selection.facts(row)
            numbers = {f"{PREFIX}{name}": facts["measurements"].get(name) for name in measured}
            rows.append({**facts, **numbers})
        growing.write("index.csv", as_csv(names, rows))
        growing.write("columns.csv", as_csv(("column", "kind", "meaning"), _dictionary(measured)))
        empty = dict.fromkeys(("tile_id", "split", "case_id", "her2_score", "marker"))
        yield [
            {"file": name, "role": "table", **empty, "sha256": file_digest(growing.place(name))}
            for name in ("index.csv", "columns.csv")
        ]

    with Growing(out, kind="csv", options=selection.identity()) as growing:
        manifest = growing.parts(write, [1], name="export", unit="table")
        beside = travelling(
            selection,
            what="This export is the table of the tiles; their pixels stay in the tile stores.",
            files=[("index.csv", "a row a tile, by split and id"), ("columns.csv", "what each column means")],
        )
        growing.finish(manifest, beside, record_of(selection))
    return {"rows": len(selection.rows), "columns": len(names)}


def _dictionary(measured: Sequence[str]) -> list[dict[str, Any]]:
    rows = []
    for name in COLUMNS:
        field = INDEX.field(name)
        described = (field.metadata or {}).get(b"description", b"").decode()
        rows.append({"column": name, "kind": _KINDS[str(field.type)], "meaning": described})
    for name in measured:
        meaning = f"measurement {name} of the tile, as docs/artefacts.md and the limits of `quality` have it"
        rows.append({"column": f"{PREFIX}{name}", "kind": "number", "meaning": meaning})
    return rows
