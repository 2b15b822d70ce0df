"""The rows that are printed: what was measured, the bar, and whether it was reached."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

from hepipe.specs.base import Spec


@dataclass(frozen=True)
class Row:
    """One line.

    Attributes:
        data: What was measured, and on what.
        figures: What came out.
        bar: What was asked for; empty when nothing was.
        reached: None without a bar.
    """

    data: str
    figures: str
    bar: str = ""
    reached: bool | None = None

    def __str__(self) -> str:
        """As it is printed."""
        verdict = {True: "reached", False: "MISSED", None: ""}[self.reached]
        return f"| {self.data} | {self.figures} | {self.bar} | {verdict} |"


@dataclass
class Table:
    """Rows in the order they were measured, printed at once and kept as JSON when asked.

    Attributes:
        heading: What is measured, before the hash of the settings.
        spec: The settings.
        about: After the hash.
        record: The file of the JSON.
    """

    heading: str
    spec: Spec
    about: str = ""
    record: Path | None = None
    rows: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        print(f"{self.heading} {config_hash(self.spec)}  {self.about}".rstrip())
        print("| data | measured | bar | |\n| --- | --- | --- | --- |", flush=True)

    def add(self, data: str, figures: str, bar: str = "", reached: bool | None = None) -> None:
        """One more row."""
        row = Row(data, figures, bar, None if reached is None else bool(reached))
        self.rows.append(row)
        print(row, flush=True)
        if self.record is not None:
            kept = {"config": config_hash(self.spec), "rows": [vars(one) for one in self.rows]}
            self.record.write_text(json.dumps(kept, indent=1) + "\n")


def config_hash(spec: Spec) -> str:
    """Twelve digits of the SHA-256 of the resolved settings."""
    text = json.dumps(spec.model_dump(mode="json"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
