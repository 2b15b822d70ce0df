"""Tables on disk: parquet with a schema written once, read and checked by both sides."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hepipe.errors import StoreError
from hepipe.stores.provenance import Provenance


def column(name: str, kind: pa.DataType, description: str, *, nullable: bool = False) -> Any:
    """A column with its unit and meaning; they travel in the file."""
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


LEFT_OUT = ("no partner", "overlaps neighbours", "discarded by its makers", "worst aligned")
"""Values of `problem` that are reasons in themselves: imported tiles that were left out on purpose."""

TILES = pa.schema(
    [
        column("tile_id", pa.string(), "`<case>/<column>-<row>` of the grid; imported: `<split>/<file name>`"),
        column("case_id", pa.string(), "case; null where an imported set does not say", nullable=True),
        column("patient_id", pa.string(), "patient; null where unknown", nullable=True),
        column("slide_id", pa.string(), "H&E slide it was cut from; null where not said", nullable=True),
        column("batch", pa.string(), "staining batch of the sheet; null where unknown", nullable=True),
        column("row_in_store", pa.int32(), "number of its chunk in the store; null without pixels", nullable=True),
        column("problem", pa.string(), "why it cannot be used, such as pixels that do not decode; empty where it can"),
        column(
            "x_px0", pa.int64(), "left edge, px at level 0 from the corner of the H&E's area of pixels", nullable=True
        ),
        column("y_px0", pa.int64(), "top edge, likewise; below 0 where a tile reaches over that corner", nullable=True),
        column("canvas_x_px0", pa.int64(), "left edge, px at level 0 from the corner of the canvas", nullable=True),
        column("canvas_y_px0", pa.int64(), "top edge, likewise", nullable=True),
        column("mpp", pa.float64(), "µm per px of the stored tile"),
        column("her2_score", pa.string(), "0, 1+, 2+, 3+ of the slide; null where unknown", nullable=True),
        column("score_level", pa.string(), "what the score was given to: slide, tile, or none where there is no score"),
        column("marker", pa.string(), "what the IHC stains"),
        column("section", pa.string(), "restained or consecutive"),
        column("source_split", pa.string(), "split that an imported set or the sheet asks for", nullable=True),
        column("source_set", pa.string(), "kind of the imported set, such as bci; empty for tiles of slides"),
        column("source_name", pa.string(), "name within that set, without suffix; empty for tiles of slides"),
        column("warped_stain", pa.string(), "he, ihc, both or none: which was interpolated; empty where not said"),
        column("tissue_frac", pa.float32(), "share of the tile that is tissue on both slides, 0 to 1"),
        column("region", pa.string(), "outlined class that most of its tissue is in; empty for none"),
        column("place", pa.string(), "inside, or outside of the tumour regions: kept for tests, never trained on"),
        column(
            "he_sha256", pa.string(), "of the H&E pixels, or the chunk of a lossy codec; null without", nullable=True
        ),
        column("ihc_sha256", pa.string(), "likewise of the IHC", nullable=True),
        column("he_phash", pa.string(), "perceptual hash of the H&E, 16 hex digits; null without", nullable=True),
        column("ihc_phash", pa.string(), "likewise of the IHC", nullable=True),
        column(
            "measurements",
            pa.map_(pa.string(), pa.float64()),
            "raw quality and stain measurements by name; optical density of DAB is an index, no measure of antigen",
        ),
    ]
)

VERDICTS = pa.schema(
    [
        column("tile_id", pa.string(), "as in the tile table"),
        column("keep", pa.bool_(), "whether the tile passes every filter"),
        column("reason", pa.string(), "the first filter it fails; empty when kept"),
        column("flags", pa.list_(pa.string()), "every filter it fails"),
        column("alignment", pa.string(), "aligned, weak, misaligned or beyond the search range"),
    ]
)

INDEX = pa.schema(
    [
        *TILES,
        column("store", pa.string(), "tile store, relative to the index"),
        column("split", pa.string(), "train, val or test; with folds what a run of fold 0 sees"),
        column("fold", pa.int32(), "fold of the patient, from 0; null without folds", nullable=True),
        column("alignment", pa.string(), "aligned, weak, misaligned or beyond the search range"),
        column("he_reader", pa.string(), "who decoded the H&E, and why not directly; null for imports", nullable=True),
        column("ihc_reader", pa.string(), "likewise the IHC", nullable=True),
    ]
)

SCORES = pa.schema(
    [
        column("run", pa.string(), "training run"),
        column("dataset", pa.string(), "data set of the tiles"),
        column("split", pa.string(), "split of the tiles"),
        column("case_id", pa.string(), "case of the tile", nullable=True),
        column("patient_id", pa.string(), "patient of the tile", nullable=True),
        column("her2_score", pa.string(), "score of the slide", nullable=True),
        column("tile_id", pa.string(), "tile; null for a metric of a whole set or case", nullable=True),
        column("metric", pa.string(), "name with its flavour"),
        column("value", pa.float64(), "null when not computed", nullable=True),
        column("status", pa.string(), "`ok`, or why there is no value"),
    ]
)

HISTORY = pa.schema(
    [
        column("step", pa.int64(), "iterations done"),
        column("phase", pa.string(), "train or val"),
        column("name", pa.string(), "loss term, learning rate or metric"),
        column("value", pa.float64(), "its value"),
    ]
)


def write_table(rows: Sequence[Mapping[str, Any]], path: Path, schema: pa.Schema, provenance: Provenance) -> None:
    """Write rows whole or not at all, in the order given.

    Raises:
        StoreError: A row misses a column, has one too many or a null where none may be.
    """
    names = set(schema.names)
    for row in rows:
        if row.keys() != names:
            odd = sorted(row.keys() ^ names)
            raise StoreError(f"{path.name}: a row has other columns than its schema: {', '.join(odd)}")
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise StoreError(f"{path.name}: column {field.name} has empty values")
    table = table.replace_schema_metadata({"hepipe": provenance.model_dump_json()})
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        pq.write_table(table, beside, compression="zstd")
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_table(path: Path, schema: pa.Schema, *, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a table; arguments and errors as of `read_columns`."""
    rows: list[dict[str, Any]] = read_columns(path, schema, columns=columns).to_pylist(maps_as_pydicts="strict")
    return rows


def read_columns(path: Path, schema: pa.Schema, *, columns: Sequence[str] | None = None) -> pa.Table:
    """A table as it is.

    Args:
        path: Of the file.
        schema: What it must have.
        columns: Read only these; rows of an index are ten times larger with their measurements.

    Raises:
        StoreError: The file is missing, no parquet, or not of this schema.
    """
    found, table = _open(path, None if columns is None else list(columns))
    if found.names != schema.names or found.types != schema.types:
        raise StoreError(
            f"{path}: columns {', '.join(found.names)} found, {', '.join(schema.names)} expected; "
            "it was written by another version: run the rule again"
        )
    return table


def store_beside(index: Path, name: str) -> Path:
    """The store that an index names, which lies in the index's folder or below it.

    Raises:
        StoreError: The name leads elsewhere.
    """
    named = PurePosixPath(name)
    if named.is_absolute() or ".." in named.parts or not named.parts:
        raise StoreError(f"{index}: store {name!r} is not below the folder of the index; assemble the data set again")
    return index.parent / named


def read_provenance(path: Path) -> Provenance:
    """What a table was made with."""
    schema, _ = _open(path, [])
    metadata = schema.metadata or {}
    if b"hepipe" not in metadata:
        raise StoreError(f"{path}: carries no provenance; it was not written by hepipe")
    return Provenance.model_validate(json.loads(metadata[b"hepipe"]))


def _open(path: Path, columns: list[str] | None) -> tuple[pa.Schema, pa.Table]:
    try:
        with pq.ParquetFile(path) as file:
            return file.schema_arrow, file.read(columns)
    except FileNotFoundError:
        raise StoreError(f"{path}: no such table") from None
    except pa.ArrowException as error:
        raise StoreError(f"{path}: not a readable parquet file ({type(error).__name__})") from error
