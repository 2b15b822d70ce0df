"""The folder of an export: it grows out of sight, goes on after a kill, and takes its place when it is whole."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hepipe import __version__
from hepipe.errors import ConfigError
from hepipe.exporters.names import checked_place
from hepipe.progress import watched
from hepipe.stores.partial import locked, partial_folder, sync_folder, told, write_synced
from hepipe.stores.provenance import digest

RECORD = "export.json"
"""Stands in every export, and tells it from a folder of somebody else's."""
MANIFEST = "manifest.csv"
FORMAT = 1
"""Raised when the bytes of an export change."""
COLUMNS = ("file", "role", "tile_id", "split", "case_id", "her2_score", "marker", "sha256")
"""Of the manifest: a row a file, or a row a sample within a shard, whose file reads `<shard>/<key>`."""

Row = Mapping[str, Any]


class Growing:
    """An export's folder while it is written; one writer at a time."""

    def __init__(self, out: Path, *, kind: str, options: Mapping[str, Any]) -> None:
        """Begin, or go on where a killed export with the same options stopped.

        Args:
            out: Where it will stand.
            kind: Of export.
            options: All that its bytes follow from.

        Raises:
            ConfigError: Something else stands there.
            StoreError: Another process writes it, or the disk fails.
        """
        self.out = out.resolve()
        self.record: dict[str, Any] = {
            "hepipe_export": FORMAT,
            "kind": kind,
            "options": dict(options),
            "version": __version__,
        }
        refuse_foreign(self.out, kind)
        self._partial = partial_folder(self.out)
        self._store = self._partial / "export"
        self._journal = self._partial / "journal"
        self._lock = locked(self._partial)
        with told(self.out):
            key, file = digest(self.record), self._partial / "key"
            # A store that is gone was put in its place by a writer that was killed before it could say so.
            if not file.is_file() or file.read_text() != key or not self._store.is_dir():
                file.unlink(missing_ok=True)
                for folder in (self._store, self._journal):
                    shutil.rmtree(folder, ignore_errors=True)
                write_synced(file, key.encode())
            self._store.mkdir(exist_ok=True)
            self._journal.mkdir(exist_ok=True)

    def __enter__(self) -> Growing:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def place(self, name: str) -> Path:
        """Where a file of the export is written, its folder made; `name` is relative, with slashes."""
        path = self._store / checked_place(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: bytes) -> None:
        """A file, whole when its part is committed."""
        self.place(name).write_bytes(content)

    def taken(self, part: int) -> list[dict[str, Any]] | None:
        """The manifest's rows of a part that an earlier writer has finished."""
        try:
            rows: list[dict[str, Any]] = json.loads((self._journal / f"{part:06d}.json").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return rows

    def commit(self, part: int, rows: Sequence[Row]) -> None:
        """A part is whole: its files are on the disk before the journal says so."""
        files = {self._store / self._file(row) for row in rows}
        for file in files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        for folder in {file.parent for file in files}:
            sync_folder(folder)
        write_synced(self._journal / f"{part:06d}.json", json.dumps(rows).encode())

    def parts(
        self, work: Callable[[int], Iterator[Sequence[Row]]], counts: Sequence[int], *, name: str, unit: str = "tile"
    ) -> list[Row]:
        """Do the parts that are not done, with a bar over their tiles; returns the manifest's rows of all, in order.

        Args:
            work: Number of a part to the rows of each of its tiles, one after the other; it writes their files.
            counts: Tiles of each part.
            name: Of the bar.
            unit: Of what `counts` counts.
        """
        done = {part: rows for part in range(len(counts)) if (rows := self.taken(part)) is not None}
        manifest: list[Row] = []

        def each() -> Iterator[None]:
            for part in range(len(counts)):
                if part in done:
                    manifest.extend(done[part])
                    continue
                own: list[Row] = []
                for rows in work(part):
                    own.extend(rows)
                    yield
                self.commit(part, own)
                manifest.extend(own)

        with told(self.out):
            for _ in watched(each(), name, total=sum(counts), unit=unit, start=sum(counts[part] for part in done)):
                pass
        return manifest

    def finish(self, manifest: Sequence[Row], beside: Mapping[str, bytes], told_of: Mapping[str, Any]) -> None:
        """Write what travels with the files, remove what does not belong, and put the folder in its place.

        Args:
            manifest: Rows of all parts.
            beside: Card, terms and the like by name.
            told_of: Further facts for the record.
        """
        with told(self.out):
            for name, content in beside.items():
                write_synced(self.place(name), content)
            write_synced(self._store / MANIFEST, as_csv(COLUMNS, manifest))
            record = {**self.record, **told_of}
            write_synced(self._store / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
            kept = {self._file(row) for row in manifest} | beside.keys() | {MANIFEST, RECORD}
            for file in [file for file in self._store.rglob("*") if file.is_file()]:
                if file.relative_to(self._store).as_posix() not in kept:
                    file.unlink()
            refuse_foreign(self.out, self.record["kind"])
            self.out.parent.mkdir(parents=True, exist_ok=True)
            if self.out.exists():
                os.replace(self.out, self._partial / "old")
            os.replace(self._store, self.out)
            sync_folder(self.out.parent)
            (self._partial / "key").unlink()
            shutil.rmtree(self._partial, ignore_errors=True)

    @staticmethod
    def _file(row: Row) -> str:
        """The file that a row of the manifest is about; a shard's samples name it first."""
        name = str(row["file"])
        head, found, _ = name.partition(".tar/")
        if found:
            return f"{head}.tar"
        head, found, _ = name.partition(".parquet/")
        return f"{head}.parquet" if found else name


def refuse_foreign(out: Path, kind: str) -> None:
    """Check that nothing but an earlier export of this kind stands in a place.

    Raises:
        ConfigError: A file, or a folder with other things in it.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigError(f"export: --out {out} is a file; give the folder to write")
    if not any(out.iterdir()):
        return
    try:
        found = json.loads((out / RECORD).read_bytes())
        own = isinstance(found, dict) and "hepipe_export" in found
    except (OSError, ValueError):
        own = False
    if not own:
        raise ConfigError(
            f"export: --out {out} holds files that no export has written, and they would go; give a new or empty folder"
        )
    if found.get("kind") != kind:
        raise ConfigError(
            f"export: --out {out} holds an export of kind {str(found.get('kind'))[:40]}, {kind} is to be written; "
            "give another folder"
        )


def manifest_row(row: Mapping[str, Any], file: str, role: str, sha256: str) -> dict[str, Any]:
    """A row of the manifest."""
    own = {name: row[name] for name in ("tile_id", "split", "case_id", "her2_score", "marker")}
    return {"file": file, "role": role, **own, "sha256": sha256}


def as_csv(columns: Sequence[str], rows: Sequence[Row]) -> bytes:
    """A table as CSV, empty where there is no value; text that a spreadsheet would compute begins with `'`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([plain_cell(row[name]) for name in columns])
    return text.getvalue().encode()


def plain_cell(value: Any) -> Any:
    """A value as a cell: a text from elsewhere is never a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
