"""The CSV of what a person decided about tiles: one row a pair, keyed by its content id."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from hepipe.errors import ConfigError

Choice = Literal["keep", "drop"]
COLUMNS = ("content_id", "tile_id", "decision", "reason", "reader", "time")
MAX_BYTES = 128_000_000
"""A file of a million decisions; more is no file of decisions."""
SHOWN = 8
"""Problems that one error lists."""
CHOICES: tuple[str, ...] = get_args(Choice)
CONTENT_ID = re.compile(r"[0-9a-f]{32}")
WORDS = re.compile(r"[^\W_][\w .+-]{0,63}")
"""Reasons and readers: words that start no formula in a spreadsheet and no tag on a page."""
TILE_ID = re.compile(r"[^\W_][^\x00-\x1f\x7f]{0,511}")
"""Ids of tiles begin with a case or a split: what begins otherwise is a stranger's, and could be a formula."""


@dataclass(frozen=True)
class Decision:
    """What one person decided about one pair.

    Attributes:
        content_id: Of the pair, see `hepipe.dataset.curation.content_id`.
        tile_id: What it was called then; for people, nothing is found by it.
        decision: Keep or drop.
        reason: Of a drop; empty where none was given.
        reader: Who decided.
        time: When, ISO 8601; empty where unknown.
    """

    content_id: str
    tile_id: str
    decision: Choice
    reason: str = ""
    reader: str = ""
    time: str = ""


@dataclass(frozen=True)
class DecisionFile:
    """What a file of decisions holds.

    Attributes:
        name: Of the file, without its folder.
        decisions: The last one on each pair, by content id, in the order of their first rows.
        repeated: Pairs that several rows decide alike.
        contradicted: Content ids that several rows decide differently; the last row counts.
        sha256: Of the file.
    """

    name: str
    decisions: Mapping[str, Decision]
    repeated: int
    contradicted: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.decisions)


def read_decisions(path: Path) -> DecisionFile:
    """The decisions of a file, with commas or semicolons between columns, of which further ones are passed over.

    Raises:
        ConfigError: No such file, no text, a column is missing, or rows that cannot be: each with its line, what was
            found and what was expected.
    """
    content, text = _text(path)
    found, repeated, contradicted = _parsed(text, path.name)
    return DecisionFile(path.name, found, repeated, contradicted, hashlib.sha256(content).hexdigest())


def read_content_ids(path: Path) -> tuple[str, ...]:
    """The content ids of a CSV with that column, such as the pairs that two readers decided differently.

    Raises:
        ConfigError: As of `read_decisions`; or there is none.
    """
    _, text = _text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_comma(text))
    try:
        found = dict.fromkeys((row.get("content_id") or "").strip() for row in reader)
    except csv.Error as error:
        raise ConfigError(f"pairs {path.name}: line {reader.line_num}: {error}") from None
    ids = tuple(one for one in found if CONTENT_ID.fullmatch(one))
    if not ids:
        raise ConfigError(f"pairs {path.name}: no content id in a column content_id")
    return ids


def _text(path: Path) -> tuple[bytes, str]:
    try:
        # Read before it is measured: what a link or a pipe gives is not what its size says.
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"decisions {path.name}: {error.strerror or 'not readable'} ({path.parent})") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"decisions {path.name}: more than {MAX_BYTES // 1_000_000} MB, which no file of decisions is"
        )
    try:
        return content, content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"decisions {path.name}: not UTF-8 text ({error.reason} at byte {error.start}); save it as CSV, UTF-8"
        ) from None


def _comma(text: str) -> str:
    """What parts the columns: spreadsheets of many countries write semicolons."""
    head = text.split("\n", 1)[0]
    return ";" if head.count(";") > head.count(",") else ","


def _parsed(text: str, name: str) -> tuple[dict[str, Decision], int, tuple[str, ...]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_comma(text))
    found: dict[str, Decision] = {}
    repeated, contradicted, errors = 0, dict[str, None](), list[str]()
    try:
        header = [cell.strip() for cell in next(reader, [])]
        if missing := [column for column in COLUMNS[:4] if column not in header]:
            seen = ", ".join(header)[:200] or "nothing"
            raise ConfigError(
                f"decisions {name}: column {', '.join(missing)} is missing; found {seen}; "
                f"expected {','.join(COLUMNS)}, as `hepipe curate` writes them"
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            line = reader.line_num
            if len(cells) != len(header):
                errors.append(f"line {line}: {len(header)} columns expected, {len(cells)} found")
            else:
                row = {column: cell.strip() for column, cell in zip(header, cells, strict=True)}
                problems = _problems(row)
                errors += [f"line {line}, column {problem}" for problem in problems]
                if not problems:
                    decision = _decision(row)
                    before = found.get(decision.content_id)
                    if before is not None and before.decision != decision.decision:
                        contradicted[decision.content_id] = None
                    repeated += before is not None
                    found[decision.content_id] = decision
            if len(errors) > SHOWN:
                break
    except csv.Error as error:
        errors.append(f"line {reader.line_num}: {error}")
    if errors:
        more = ["further problems follow"] if len(errors) > SHOWN else []
        raise ConfigError(f"decisions {name}:\n  " + "\n  ".join([*errors[:SHOWN], *more]))
    return found, repeated - len(contradicted), tuple(contradicted)


def _problems(row: Mapping[str, str]) -> list[str]:
    problems = []
    content = row["content_id"]
    if not CONTENT_ID.fullmatch(content):
        spoilt = " (a spreadsheet has made a number of it: read the column as text)" if "E+" in content.upper() else ""
        problems.append(f"content_id: {content[:40]!r} found, 32 hexadecimal digits expected{spoilt}")
    if not TILE_ID.fullmatch(row["tile_id"]):
        problems.append(f"tile_id: {row['tile_id'][:40]!r} found, the id of a tile expected")
    if row["decision"] not in CHOICES:
        problems.append(f"decision: {row['decision'][:40]!r} found, keep or drop expected")
    for column in ("reason", "reader"):
        value = row.get(column, "")
        if value and not WORDS.fullmatch(value):
            problems.append(
                f"{column}: {value[:40]!r} found, at most 64 letters, digits, spaces and . + - _ expected, "
                "a letter or digit first"
            )
    time = row.get("time", "")
    if time and not _is_time(time):
        problems.append(f"time: {time[:40]!r} found, such as 2025-03-31T14:05:00Z expected")
    return problems


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _decision(row: Mapping[str, str]) -> Decision:
    return Decision(
        row["content_id"],
        row["tile_id"],
        "keep" if row["decision"] == "keep" else "drop",
        # A reason for keeping would read as one for dropping further on.
        row["reason"] if row["decision"] == "drop" else "",
        row.get("reader", ""),
        row.get("time", ""),
    )


def checked(row: Mapping[str, str]) -> Decision:
    """A decision from a stranger's cells.

    Raises:
        ConfigError: They are none.
    """
    if problems := _problems({column: str(row.get(column, "")) for column in COLUMNS}):
        raise ConfigError(f"decision: {'; '.join(problems)}")
    return _decision({column: str(row.get(column, "")) for column in COLUMNS})


def csv_text(decisions: Iterable[Decision]) -> str:
    """The file's text, rows in the order given."""
    return table_text(COLUMNS, ([getattr(one, column) for column in COLUMNS] for one in decisions))


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Write a file of decisions whole or not at all, and on the disk when this returns."""
    write_text(path, csv_text(decisions))


def table_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Any table as CSV."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, and on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
