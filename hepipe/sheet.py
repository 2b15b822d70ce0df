"""The slide sheet: one row is one pair of slides."""

from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hepipe.errors import ConfigError
from hepipe.geometry import MPP_RANGE, GivenMpp

Score = Literal["0", "1+", "2+", "3+"]
SCORES: tuple[Score, ...] = ("0", "1+", "2+", "3+")
REQUIRED = ("case_id", "patient_id", "he", "ihc", "marker", "her2_score", "section")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
PieceRole = Literal["matched", "control", "extra", "missing"]
PIECE_ROLES: dict[str, tuple[PieceRole, ...]] = {"he": ("matched", "missing"), "ihc": ("matched", "control", "extra")}
_PIECE = re.compile(r"(he|ihc)(\d+)=(\w+)")


class CaseRow(BaseModel):
    """One pair of slides. Empty cells are None."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    case_id: str = Field(description="Name of the pair; letters, digits, `_`, `.`, `-`. Appears in all results.")
    patient_id: str = Field(description="The unit of splits; several cases may share it.")
    he: str = Field(min_length=1, description="File of the H&E slide, relative to the sheet.")
    ihc: str = Field(min_length=1, description="File of the IHC slide, relative to the sheet.")
    marker: str = Field(min_length=1, description="What the IHC stains, such as HER2.")
    her2_score: Score | None = Field(description="Score of the IHC slide: 0, 1+, 2+, 3+ or empty.")
    section: Literal["restained", "consecutive"] = Field(description="The same section stained again, or the next.")
    mpp_he: GivenMpp = Field(None, description="µm per px at level 0, overrides the file; or `unknown`.")
    mpp_ihc: GivenMpp = Field(None, description="µm per px at level 0, overrides the file; or `unknown`.")
    landmarks: str | None = Field(None, description="CSV of `x_he,y_he,x_ihc,y_ihc` in px0, or `HE.csv;IHC.csv`.")
    start: Literal["landmarks"] | None = Field(
        None, description="landmarks: this pair starts from its landmarks in place of the search."
    )
    accepted: Literal["yes", "no"] | None = Field(None, description="A person's verdict on the registration.")
    pieces: str | None = Field(
        None, description="A person's word on pieces of tissue, such as `ihc3=control, he2=missing`."
    )
    regions: str | None = Field(None, description="QuPath GeoJSON of regions on the H&E slide.")
    split: Literal["train", "val", "test"] | None = Field(None, description="Fixes the patient's split.")
    her2_score_restained: Score | None = Field(None, description="Score read again on the restained slide.")
    reviewer: str | None = Field(None, description="Who reviewed; an id, not a name.")
    ish: Literal["amplified", "not_amplified", "equivocal"] | None = None
    guideline: str | None = None
    clone: str | None = None
    specimen: str | None = None
    batch: str | None = Field(None, description="Staining batch.")

    @field_validator("case_id", "patient_id")
    @classmethod
    def _plain_id(cls, value: str) -> str:
        if not _ID.fullmatch(value):
            raise ValueError("1 to 64 letters, digits, '_', '.', '-' expected, starting with a letter or digit")
        if value.split(".")[0] == "imported":
            raise ValueError("this name stands for imported tiles; choose another")
        return value

    @field_validator("mpp_he", "mpp_ihc", mode="before")
    @classmethod
    def _plausible_mpp(cls, value: Any) -> GivenMpp:
        return parse_mpp(value)

    @field_validator("pieces")
    @classmethod
    def _readable_pieces(cls, value: str | None) -> str | None:
        read_piece_roles(value or "")
        return value

    @property
    def scores_disagree(self) -> bool:
        """Whether the score on the restained slide differs: such a pair goes to review."""
        return None not in (self.her2_score, self.her2_score_restained) and (
            self.her2_score != self.her2_score_restained
        )

    @model_validator(mode="after")
    def _starts_somewhere(self) -> CaseRow:
        if self.start == "landmarks" and not self.landmarks:
            raise ValueError("start is landmarks, but the cell landmarks is empty")
        return self

    @model_validator(mode="before")
    @classmethod
    def _empty_is_none(cls, values: Any) -> Any:
        if isinstance(values, dict):
            return {key: None if value == "" else value for key, value in values.items()}
        return values


def read_piece_roles(text: str) -> dict[tuple[str, int], PieceRole]:
    """What a person says of pieces, `ihc3=control, he2=missing`: role by stain and number; commas or spaces between.

    Raises:
        ValueError: Another form, a role that a stain has not, or a piece named twice.
    """
    roles: dict[tuple[str, int], PieceRole] = {}
    for part in re.sub(r"\s*=\s*", "=", text).replace(",", " ").replace(";", " ").split():
        form = _PIECE.fullmatch(part)
        if form is None:
            raise ValueError(f"{part!r} is no piece; write them like ihc3=control, he2=missing")
        stain, number, word = form[1], int(form[2]), form[3]
        role = next((one for one in PIECE_ROLES[stain] if one == word), None)
        if role is None:
            raise ValueError(f"{part}: a piece of {stain} is {' or '.join(PIECE_ROLES[stain])}")
        if (stain, number) in roles:
            raise ValueError(f"{stain}{number} is named twice")
        roles[stain, number] = role
    return roles


def parse_mpp(value: str | float | None) -> GivenMpp:
    """A pixel size as a person writes it: µm per px, the word `unknown`, or nothing.

    Raises:
        ValueError: Anything else.
    """
    if value is None or value == "" or value == "unknown":
        return "unknown" if value else None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    low, high = MPP_RANGE
    if not low <= number <= high:
        raise ValueError(f"{low} to {high} µm per px or the word unknown expected")
    return number


def read_sheet(path: Path, folder: Path | None = None) -> list[CaseRow]:
    """The pairs of a slide sheet (TSV with a header), with slide paths made absolute.

    Args:
        path: The sheet.
        folder: What paths in it are relative to; the sheet's own folder when None.

    Raises:
        ConfigError: Missing file or column, unknown column, a bad cell (named by row and column), a repeated case.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"slide sheet {path}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"slide sheet {path}: not UTF-8 text ({error.reason}); save it as TSV, UTF-8") from None
    reader = csv.DictReader(io.StringIO(text), delimiter="\t")
    header = [name.strip() for name in reader.fieldnames or []]
    reader.fieldnames = header
    missing = [name for name in REQUIRED if name not in header]
    unknown = [name for name in header if name not in CaseRow.model_fields]
    if missing or unknown:
        problems = [f"column {name} is missing" for name in missing]
        problems += [f"column {name!r} is not known" for name in unknown]
        raise ConfigError(f"slide sheet {path}: {'; '.join(problems)} (columns are separated by tabs)")
    rows: list[CaseRow] = []
    lines: dict[str, int] = {}
    errors: list[str] = []
    for line, cells in enumerate(reader, start=2):
        if None in cells or None in cells.values():
            errors.append(f"row {line}: {len(header)} columns expected, another number found")
            continue
        values = {name: value.strip() for name, value in cells.items()}
        if not any(values.values()):
            continue
        try:
            row = CaseRow.model_validate(values)
        except ValidationError as error:
            errors += [f"row {line}, column {_column(e)}: {_message(e)}" for e in error.errors()]
            continue
        if row.case_id in lines:
            errors.append(f"row {line}, column case_id: {row.case_id} stands in row {lines[row.case_id]} already")
            continue
        lines[row.case_id] = line
        rows.append(_resolved(row, path.parent if folder is None else folder))
    errors += _patients_disagree(rows, lines)
    if errors:
        raise ConfigError(f"slide sheet {path}:\n  " + "\n  ".join(errors))
    if not rows:
        raise ConfigError(f"slide sheet {path}: no rows")
    return rows


def _resolved(row: CaseRow, folder: Path) -> CaseRow:
    def place(value: str | None) -> str | None:
        return None if value is None else ";".join(str((folder / part).absolute()) for part in value.split(";"))

    changed = {name: place(getattr(row, name)) for name in ("he", "ihc", "landmarks", "regions")}
    return row.model_copy(update=changed)


def _patients_disagree(rows: list[CaseRow], lines: dict[str, int]) -> list[str]:
    splits: dict[str, CaseRow] = {}
    errors = []
    for row in rows:
        if row.split is None:
            continue
        first = splits.setdefault(row.patient_id, row)
        if first.split != row.split:
            errors.append(
                f"row {lines[row.case_id]}, column split: {row.split}, but patient {row.patient_id} is in "
                f"{first.split} by row {lines[first.case_id]}; a patient is in one split"
            )
    return errors


def _column(error: Any) -> str:
    return str(error["loc"][0]) if error["loc"] else "?"


def _message(error: Any) -> str:
    found = error.get("input")
    message = str(error["msg"]).removeprefix("Value error, ")
    return f"{message} (found {found!r})" if isinstance(found, str) else "empty, a value is required"
