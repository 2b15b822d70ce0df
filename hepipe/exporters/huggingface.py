"""A folder as the library `datasets` loads it: parquet with the pictures in it, and a README with its YAML head.

Image feature: a struct of `bytes` and `path`; its type stands in the parquet metadata under `huggingface`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from hepipe.exporters.cards import record_of, travelling
from hepipe.exporters.growing import Growing, Row, manifest_row
from hepipe.exporters.selection import COLUMNS, SPLITS, Selection, png
from hepipe.exporters.shards import Order, Shard, file_digest, plan
from hepipe.parallel import in_order
from hepipe.specs.dataset import Split
from hepipe.stores.tables import INDEX

ROWS_PER_GROUP = 64
"""Tiles of a row group, which a reader holds at once: some 80 MB of pairs of 512 px."""
NAMES: Mapping[Split, str] = {"train": "train", "val": "validation", "test": "test"}
"""What the library calls our splits."""
_PICTURE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])
_DTYPES = {
    pa.string(): "string", pa.int32(): "int32", pa.int64(): "int64", pa.float32(): "float32", pa.float64(): "float64",
}  # fmt: skip
_SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))


def export_huggingface(
    selection: Selection, out: Path, *, shard_mb: int = 500, order: Order = "id", workers: int = 1
) -> dict[str, int]:
    """Write `data/<split>-<number>-of-<count>.parquet`, README.md and LICENSE.

    Returns:
        Shards and rows.

    Raises:
        ConfigError: Something else stands in the folder, or a shard is too small.
        StoreError: A tile is damaged, or the disk fails.
    """
    shards = plan(selection, shard_mb=shard_mb, order=order)
    pictures = ("he", "ihc", *(["dab_mask"] if selection.has_masks else []))
    measured = selection.measurements()
    features = _features(pictures, measured)
    schema = _schema(pictures, measured, features)

    def made(row: Row) -> dict[str, Any]:
        own: dict[str, Any] = {}
        for name in pictures:
            content = png(selection.mask(row) if name == "dab_mask" else selection.rgb(row, name))
            own[name] = {"bytes": content, "path": f"{selection.name(row)}.{name}.png"}
        facts = selection.facts(row)
        numbers = {name: facts["measurements"].get(name) for name in measured}
        return {**own, **facts, "measurements": numbers} if measured else {**own, **_without(facts, "measurements")}

    def write(number: int) -> Iterator[Sequence[Row]]:
        shard = shards[number]
        name = _name(shard)
        # PNG does not shrink; a dictionary of pictures would only be built and given up.
        pixels = {f"{picture}.bytes" for picture in pictures}
        codecs: Any = {path: "none" if path in pixels else "zstd" for path in _leaves(schema)}
        dictionaries: Any = [path for path in codecs if path not in pixels]
        with pq.ParquetWriter(growing.place(name), schema, compression=codecs, use_dictionary=dictionaries) as writer:
            waiting: list[dict[str, Any]] = []
            for row, item in zip(shard.rows, in_order(made, shard.rows, workers=workers, name="export"), strict=True):
                waiting.append(item)
                if len(waiting) == ROWS_PER_GROUP:
                    writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                    waiting = []
                whole = hashlib.sha256(b"".join(item[picture]["bytes"] for picture in pictures))
                yield [manifest_row(row, f"{name}/{selection.name(row)}", "row", whole.hexdigest())]
            if waiting:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))

    options = {**selection.identity(), "shard_mb": shard_mb, "order": order}
    with Growing(out, kind="huggingface", options=options) as growing:
        manifest = growing.parts(write, [len(shard.rows) for shard in shards], name="export")
        listed = [
            {"file": _name(shard), "rows": len(shard.rows), "sha256": file_digest(growing.place(_name(shard)))}
            for shard in shards
        ]
        sizes = dict.fromkeys(SPLITS, 0)
        for shard in shards:
            sizes[shard.split] += growing.place(_name(shard)).stat().st_size
        what = 'Load it with `datasets.load_dataset("FOLDER")`: '
        beside = travelling(
            selection,
            what=f"{what}{', '.join(f'`{name}`' for name in pictures)} are pictures, all else stands beside them.",
            files=[(f"data/{NAMES[split]}-*.parquet", f"split {split}") for split in selection.used],
            page="README.md",
            head=_head(selection, features, sizes),
            terms="LICENSE",
        )
        growing.finish(manifest, beside, {**record_of(selection), "shards": listed})
    return {"shards": len(shards), "rows": len(manifest)}


def _name(shard: Shard) -> str:
    return f"data/{NAMES[shard.split]}-{shard.number:05d}-of-{shard.of:05d}.parquet"


def _features(pictures: Sequence[str], measured: Sequence[str]) -> dict[str, Any]:
    """The features as the library keeps them."""
    features: dict[str, Any] = {name: {"_type": "Image"} for name in pictures}
    for name in COLUMNS:
        features[name] = {"dtype": _DTYPES[INDEX.field(name).type], "_type": "Value"}
    if measured:
        features["measurements"] = {name: {"dtype": "float64", "_type": "Value"} for name in measured}
    return features


def _schema(pictures: Sequence[str], measured: Sequence[str], features: Mapping[str, Any]) -> pa.Schema:
    fields = [pa.field(name, _PICTURE) for name in pictures]
    fields += [pa.field(name, INDEX.field(name).type) for name in COLUMNS]
    if measured:
        fields.append(pa.field("measurements", pa.struct([pa.field(name, pa.float64()) for name in measured])))
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _leaves(schema: pa.Schema) -> list[str]:
    """Paths of the columns as parquet names them."""
    return [
        path
        for field in schema
        for path in (
            [f"{field.name}.{inner.name}" for inner in field.type] if pa.types.is_struct(field.type) else [field.name]
        )
    ]


def _head(selection: Selection, features: Mapping[str, Any], sizes: Mapping[Split, int]) -> str:
    """The YAML head; strings as JSON has them, which is YAML too."""
    size = next((name for name, below in _SIZES if len(selection.rows) < below), "n>1M")
    lines = [
        "---",
        f"pretty_name: {json.dumps(selection.card.name)}",
        "license: other",
        "license_name: terms-of-the-sources",
        "license_link: LICENSE",
        "task_categories:",
        "- image-to-image",
        "tags:",
        "- histopathology",
        "- virtual-staining",
        "size_categories:",
        f"- {size}",
        "configs:",
        "- config_name: default",
        "  data_files:",
    ]
    for split in selection.used:
        lines += [f"  - split: {NAMES[split]}", f"    path: data/{NAMES[split]}-*"]
    lines += ["dataset_info:", "  features:"]
    for name, feature in features.items():
        lines.append(f"  - name: {json.dumps(name)}")
        if feature.get("_type") == "Image":
            lines.append("    dtype: image")
        elif feature.get("_type") == "Value":
            lines.append(f"    dtype: {feature['dtype']}")
        else:
            lines.append("    struct:")
            for inner, kind in feature.items():
                lines += [f"    - name: {json.dumps(inner)}", f"      dtype: {kind['dtype']}"]
    lines.append("  splits:")
    for split in selection.used:
        count = len(selection.in_split(split))
        lines += [f"  - name: {NAMES[split]}", f"    num_bytes: {sizes[split]}", f"    num_examples: {count}"]
    total = sum(sizes.values())
    lines += [f"  download_size: {total}", f"  dataset_size: {total}", "---", "", ""]
    return "\n".join(lines)


def _without(facts: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if key != name}
