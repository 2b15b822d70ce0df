"""What must not leave with results: names and paths of slide files, vendor text, dates of scans, absolute paths."""

from __future__ import annotations

import base64
import binascii
import io
import re
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
from PIL import ExifTags, Image
from pydantic import ValidationError

from hepipe.sheet import CaseRow

MIN_WORD = 4
"""Shorter names, such as `he`, stand in every text."""

GENERIC = frozenset(
    {
        "case",
        "cases",
        "data",
        "folder",
        "home",
        "image",
        "images",
        "results",
        "scan",
        "scans",
        "slide",
        "slides",
        "synth",
    }
)
"""Names of folders that say nothing of a patient."""

VENDOR = re.compile(
    r"(?<![A-Za-z])(?:aperio|hamamatsu|leica|mirax|philips|ventana|trestle)\.[A-Za-z]\w+"
    r"|ScanScope|ImageDescription|Aperio Image Library|SLIDE_ID\b|PIM_DP_\w+|UnitNumber|BARCODE_\w+"
)
"""Keys under which slide files and openslide keep a scanner's free text."""

ABSOLUTE = re.compile(
    r"(?<![\w./:<>-])/(?:home|Users|mnt|media|data|work|tmp|var|scratch|root|srv|opt|gpfs|lustre|nfs|net|vol\w*|proj\w*)"
    r"/[\w.-]+|(?<![\w])[A-Za-z]:\\\\?[\w.-]+\\|\\\\\\\\[\w.-]+\\\\[\w.-]+"
)
"""Absolute paths of Unix, Windows and network shares."""

DATE_TAGS = {"DateTime", "DateTimeOriginal", "DateTimeDigitized", "PreviewDateTime"}
TEXT_TAGS = {
    "ImageDescription",
    "Artist",
    "HostComputer",
    "DocumentName",
    "PageName",
    "Copyright",
    "XMP",
    "UserComment",
}
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".gif"}
DATA_URI = re.compile(r"data:image/[a-z+]+;base64,([A-Za-z0-9+/=\s]+)")
READABLE_RUN = re.compile(rb"[\x20-\x7e\t]{8,}")


@dataclass(frozen=True)
class Finding:
    """Something that points at a patient or a slide file.

    Attributes:
        file: Relative to the scanned folder.
        what: What it is, without repeating it.
    """

    file: str
    what: str


def private_words(folder: Path, *, results: Path) -> dict[str, str]:
    """What the cases' private rows know of slide files, and what each is.

    A name that is part of an id which the sheet gives to the public is left out: the user chose it for that. So is a
    slide that lies in the results themselves, as those of a synthetic cohort do.

    Args:
        folder: `results/private`.
        results: The folder to be scanned.
    """
    rows = []
    for path in sorted(folder.rglob("row.json")):
        try:
            rows.append(CaseRow.model_validate_json(path.read_text(encoding="utf-8")))
        except (ValidationError, UnicodeDecodeError):
            continue
    public = {row.case_id.lower() for row in rows} | {row.patient_id.lower() for row in rows}
    public |= {row.marker.lower() for row in rows}
    words: dict[str, str] = {}
    for row in rows:
        for column in ("he", "ihc", "landmarks", "regions"):
            for text in (getattr(row, column) or "").split(";"):
                path = Path(text)
                if not text or path.resolve().is_relative_to(results.resolve()):
                    continue
                about = f"of the {column} file of case {row.case_id}"
                for word, what in (
                    (str(path), f"path {about}"),
                    (path.name, f"name {about}"),
                    (path.stem, f"name {about}"),
                    (str(path.parent), f"folder {about}"),
                    (path.parent.name, f"folder {about}"),
                ):
                    lower = word.lower()
                    # Of a short stem a name says nothing, and `he.jpg` is what our own pictures are called.
                    is_short = len(word if "/" in word else Path(word).stem) < MIN_WORD
                    if not is_short and lower not in GENERIC and not any(lower in name for name in public):
                        words.setdefault(word, what)
    return words


def scan(folder: Path, *, words: Mapping[str, str], skip: Path) -> list[Finding]:
    """Every finding in a folder, in the order of its files.

    Args:
        folder: Results or an export.
        words: What may not appear, and what it is.
        skip: The private folder, which is not scanned.
    """
    patterns = [(re.compile(rf"(?<![A-Za-z0-9]){re.escape(w)}(?![A-Za-z0-9])", re.IGNORECASE), w) for w in words]
    # Longest first, so that a whole path is named and not its last part too.
    patterns.sort(key=lambda pair: -len(pair[1]))
    findings: dict[Finding, None] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_relative_to(skip) or not path.is_file() or _is_pixels(path):
            continue
        name = path.relative_to(folder).as_posix()
        for text, place in [(name, "in its own name"), *texts_of(path)]:
            for what in _look(text, patterns, words):
                findings[Finding(name, f"{what} ({place})")] = None
            if place.startswith("tag") and place.removeprefix("tag ") in DATE_TAGS:
                findings[Finding(name, f"a date ({place})")] = None
    return list(findings)


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Every text in a file and where it stands: `text`, `column …`, `metadata`, `tag …`."""
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet(path)
    elif kind in PICTURES:
        yield from _picture(path.read_bytes())
    elif kind in (".tif", ".tiff", ".svs"):
        yield from _tiff(path)
    elif kind == ".safetensors":
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            yield file.read(length).decode("utf-8", "replace"), "header"
    else:
        content = path.read_bytes()
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            yield "\n".join(run.decode("ascii") for run in READABLE_RUN.findall(content)), "readable part"
            return
        # Pictures inside a page carry tags too; their base64 holds no words of its own.
        for number, match in enumerate(DATA_URI.finditer(text)):
            try:
                embedded = base64.b64decode(match.group(1), validate=False)
            except binascii.Error:
                continue
            yield from ((part, f"picture {number + 1}, {place}") for part, place in _picture(embedded))
        yield DATA_URI.sub("data:", text), "text"


def _look(text: str, patterns: list[tuple[re.Pattern[str], str]], words: Mapping[str, str]) -> Iterator[str]:
    for pattern, word in patterns:
        text, n_found = pattern.subn(" ", text)
        if n_found:
            yield words[word]
    if VENDOR.search(text):
        yield "a key of a scanner's metadata"
    if ABSOLUTE.search(text):
        yield "an absolute path"


def _is_pixels(path: Path) -> bool:
    """Whether this is a chunk of a zarr array: compressed numbers, which hold no text."""
    return any(part.suffix == ".zarr" for part in path.parents) and path.suffix == ""


def _parquet(path: Path) -> Iterator[tuple[str, str]]:
    table = pq.read_table(path)
    for key, value in (table.schema.metadata or {}).items():
        if key != b"ARROW:schema":
            yield value.decode("utf-8", "replace"), f"metadata {key.decode('utf-8', 'replace')}"
    for field in table.schema:
        if not (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_boolean(field.type)):
            values = {str(value) for value in table[field.name].to_pylist() if value is not None}
            yield "\n".join(sorted(values)), f"column {field.name}"


def _picture(content: bytes) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content)) as image:
                texts = {str(key): value for key, value in {**image.info, **getattr(image, "text", {})}.items()}
                exif = image.getexif()
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            yield "\n".join(run.decode("ascii") for run in READABLE_RUN.findall(content)), "readable part"
            return
    for key, value in texts.items():
        if key not in ("exif", "icc_profile", "dpi"):
            yield _plain(value), f"metadata {key}"
    for number, value in (*exif.items(), *exif.get_ifd(ExifTags.IFD.Exif).items()):
        yield _plain(value), f"tag {ExifTags.TAGS.get(number, number)}"


def _tiff(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with tifffile.TiffFile(path) as file:
            for page in file.pages:
                for tag in getattr(page, "tags", ()):
                    if isinstance(tag.value, str | bytes) and (tag.name in DATE_TAGS | TEXT_TAGS or tag.dtype == 2):
                        yield _plain(tag.value), f"tag {tag.name}"
    except (tifffile.TiffFileError, OSError, ValueError, LookupError):
        yield "\n".join(run.decode("ascii") for run in READABLE_RUN.findall(path.read_bytes())), "readable part"


def _plain(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
