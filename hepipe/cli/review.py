"""Commands for the person who looks: landmarks by hand, and the page of the pairs that need an eye."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hepipe.cli.options import Checked, MppHe, MppIhc, OutPath, Registered, SlidePath, Stain
from hepipe.cli.pairs import open_given, open_pair
from hepipe.errors import ConfigError, SlideError

if TYPE_CHECKING:
    from hepipe.geometry import Transform
    from hepipe.slides.reader import Slide

landmarks_app = typer.Typer(no_args_is_help=True, help="Set, import and export corresponding points of a pair.")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(landmarks_app, name="landmarks")
    app.command()(review)


def review(
    folder: Annotated[Path, typer.Option(exists=True, help="A data set's folder in the results.")],
    cases: Annotated[str, typer.Option(help="Ids of its pairs, with commas between.")],
    page: OutPath,
) -> None:
    """Write the page of a data set's pairs: those in review and the failed ones first, with what to do about each."""
    from hepipe.report.review_page import write_review

    typer.echo(write_review(folder, [case for case in cases.split(",") if case], page=page), err=True)


@landmarks_app.command("page")
def landmarks_page(
    he: SlidePath,
    ihc: SlidePath,
    page: OutPath,
    checked: Checked = None,
    mpp_he: MppHe = "",
    mpp_ihc: MppIhc = "",
    transform: Registered = None,
    landmarks: Annotated[str, typer.Option(help="Pairs to begin with, in any format of `landmarks import`.")] = "",
    case: Annotated[str, typer.Option(help="Name of the case, without --checked.")] = "case",
) -> None:
    """Write one HTML file on which a person clicks pairs of points and saves them."""
    from hepipe.errors import RegistrationError
    from hepipe.registration.landmarks import read_landmarks
    from hepipe.report.landmark_page import landmark_page, page_without_slides

    name, status = _subject(checked, case)
    if status:
        _write(page, page_without_slides(name, status))
        return
    try:
        with _opened(he, ihc, checked, mpp_he, mpp_ihc) as (fixed, moving):
            try:
                points = read_landmarks(name, landmarks, he=fixed, ihc=moving) if landmarks else None
            except RegistrationError:
                # The case's verdict says what is wrong with them; this page is where new ones come from.
                points = None
            text = landmark_page(
                fixed,
                moving,
                case_id=name,
                ihc_from_he=_transform(transform),
                he_px0=None if points is None else points.he_px0,
                ihc_px0=None if points is None else points.ihc_px0,
            )
    except SlideError as error:
        if checked is None:
            raise
        text = page_without_slides(name, error.reason)
    _write(page, text)
    typer.echo(f"{page}: open it in a browser, click pairs, save the CSV", err=True)


@landmarks_app.command("export")
def landmarks_export(
    he: SlidePath,
    ihc: SlidePath,
    folder: OutPath,
    checked: Checked = None,
    mpp_he: MppHe = "",
    mpp_ihc: MppIhc = "",
    transform: Registered = None,
) -> None:
    """Write suggested points for QuPath, overviews with them, and the steps in QuPath and BigWarp."""
    from hepipe.registration.template import export_pair

    with _opened(he, ihc, checked, mpp_he, mpp_ihc) as (fixed, moving):
        count = export_pair(fixed, moving, _transform(transform), folder)
    typer.echo(f"{folder}: {count} suggested places; README.txt says how to go on", err=True)


@landmarks_app.command("import")
def landmarks_import(
    files: Annotated[str, typer.Argument(help="One file of pairs, or HE;IHC; its format is told by its content.")],
    out: OutPath,
    he: Annotated[Path | None, typer.Option(exists=True, help="The H&E slide: for units, and to check points.")] = None,
    ihc: Annotated[Path | None, typer.Option(exists=True, help="The IHC slide.")] = None,
    checked: Checked = None,
    mpp_he: MppHe = "",
    mpp_ihc: MppIhc = "",
    transform: Registered = None,
    case: Annotated[str, typer.Option(help="Which rows of a table of several cases, without --checked.")] = "case",
    unit: Annotated[Literal["auto", "px", "um", "mm"], typer.Option(help="Of BigWarp's numbers; Warpy: mm.")] = "auto",
    fixed: Annotated[Stain, typer.Option(help="Which slide BigWarp held fixed.")] = "he",
) -> None:
    """Turn QuPath GeoJSON, BigWarp, ANHIR or long tables into x_he,y_he,x_ihc,y_ihc in px of the largest level."""
    from hepipe.registration.formats import pairs_csv
    from hepipe.registration.landmarks import check_landmarks, read_landmarks

    name, _ = _subject(checked, case)
    if (he is None) != (ihc is None):
        raise ConfigError("--he and --ihc go together")
    if he is None or ihc is None:
        found = read_landmarks(name, files, unit=unit, fixed=fixed)
        notes = [*found.notes, "not checked against the slides; give --he and --ihc to do so"]
    else:
        with _opened(he, ihc, checked, mpp_he, mpp_ihc) as (fixed_slide, moving):
            found = read_landmarks(name, files, he=fixed_slide, ihc=moving, unit=unit, fixed=fixed)
            notes = check_landmarks(name, found, he=fixed_slide, ihc=moving, ihc_from_he=_transform(transform))
    _write(out, pairs_csv(found.he_px0, found.ihc_px0))
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(f"{out}: {len(found.he_px0)} pairs", err=True)


def _subject(checked: Path | None, case: str) -> tuple[str, str]:
    """A case's id, and why its slides cannot be shown; empty when they can."""
    from hepipe.stores.cases import read_checked

    if checked is None:
        return case, ""
    record = read_checked(checked)
    status = record.provenance.status
    return record.case_id, status.reason if status.failed else ""


@contextlib.contextmanager
def _opened(he: Path, ihc: Path, checked: Path | None, mpp_he: str, mpp_ihc: str) -> Iterator[tuple[Slide, Slide]]:
    from hepipe.stores.cases import read_checked

    if checked is not None and (mpp_he or mpp_ihc):
        raise ConfigError("--mpp-he and --mpp-ihc go without --checked, which holds both")
    opened = open_given(he, ihc, mpp_he, mpp_ihc) if checked is None else open_pair(he, ihc, read_checked(checked))
    with opened as (fixed, moving):
        yield fixed, moving


def _transform(path: Path | None) -> Transform | None:
    """What a registration ended with, be it good enough or not: it only proposes."""
    from hepipe.stores.arrays import read_registered

    if path is None:
        return None
    registered = read_registered(path)
    return registered.ihc_from_he or registered.proposed


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
