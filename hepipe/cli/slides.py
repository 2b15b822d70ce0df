"""Commands about slide files: check a pair, look for what must not leave, write a slide sheet."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hepipe.cli.options import OutPath, SpecJson

if TYPE_CHECKING:
    from hepipe.sheet import CaseRow
    from hepipe.slides.check import SlideFound
    from hepipe.specs.slides import SlidesSpec
    from hepipe.status import CaseStatus


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(check)
    deid = typer.Typer(no_args_is_help=True, help="De-identification of results.")
    deid.command("check")(deid_check)
    app.add_typer(deid, name="deid")
    sheet = typer.Typer(no_args_is_help=True, help="Slide sheets of public sets.")
    sheet.command("acrobat")(sheet_acrobat)
    app.add_typer(sheet, name="sheet")


def check(
    row: Annotated[str, typer.Option(help="The case's row of the slide sheet as JSON.")],
    checked: OutPath,
    private: Annotated[Path, typer.Option(help="Where the row with its paths goes; never leaves.")],
    spec: SpecJson = "{}",
) -> None:
    """Open both slides of a case and say whether they can be used."""
    from hepipe.sheet import CaseRow
    from hepipe.specs.slides import SlidesSpec
    from hepipe.stores.cases import CheckedCase, SlideFacts, write_checked
    from hepipe.stores.provenance import Provenance

    case = CaseRow.model_validate_json(row)
    slides = SlidesSpec.model_validate_json(spec)
    private.parent.mkdir(parents=True, exist_ok=True)
    beside = private.with_name(f".{private.name}.{os.getpid()}")
    beside.write_text(case.model_dump_json(indent=1) + "\n", encoding="utf-8")
    os.replace(beside, private)

    found, status = _check_pair(case, slides)
    profiles = {slide.icc_sha256 for slide in found.values()}
    notes = ["the two slides carry different colour profiles (ICC)"] if len(profiles) > 1 else []
    facts = {stain: SlideFacts.model_validate(dataclasses.asdict(slide)) for stain, slide in found.items()}
    record = CheckedCase(
        case_id=case.case_id,
        patient_id=case.patient_id,
        marker=case.marker,
        her2_score=case.her2_score,
        section=case.section,
        split=case.split,
        batch=case.batch,
        start=case.start,
        accepted=case.accepted,
        pieces=case.pieces,
        he=facts.get("he"),
        ihc=facts.get("ihc"),
        provenance=Provenance(
            artefact="checked",
            subject=case.case_id,
            spec=slides.model_dump(mode="json"),
            inputs={stain: slide.content_sha256 for stain, slide in found.items()},
            told={"notes": notes} if notes else {},
            status=status,
        ),
    )
    write_checked(checked, record)
    typer.echo(f"case {case.case_id}: {status.state}{': ' + status.reason if status.reason else ''}")
    for note in notes:
        typer.echo(f"  {note}")


def _check_pair(case: CaseRow, spec: SlidesSpec) -> tuple[dict[str, SlideFound], CaseStatus]:
    """What the usable slides of a pair are, and the verdict on the pair."""
    from hepipe.errors import SlideError
    from hepipe.slides.check import check_slide
    from hepipe.status import OK, failed, review

    found: dict[str, SlideFound] = {}
    problems: list[str] = []
    for stain, path, mpp in (("he", case.he, case.mpp_he), ("ihc", case.ihc, case.mpp_ihc)):
        try:
            found[stain] = check_slide(Path(path), slide_id=f"{case.case_id}-{stain}", mpp=mpp, spec=spec)
        except SlideError as error:
            problems.append(str(error))
    if problems:
        return found, failed("slides", "; ".join(problems))
    if Path(case.he).samefile(case.ihc) or found["he"].content_sha256 == found["ihc"].content_sha256:
        return found, failed("slides", "he and ihc are the same slide; correct the row of the slide sheet")
    if case.accepted == "no":
        return found, failed("registration", "a person rejected this registration (column accepted)")
    if case.scores_disagree:
        first, again = case.her2_score, case.her2_score_restained
        return found, review("slides", f"the sheet scores the slide {first}, read again on the restained one {again}")
    return found, OK


def deid_check(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of results, or an export.")],
    private: Annotated[
        Path | None, typer.Option(help="Folder with the cases' rows; default: `private` in the folder.")
    ] = None,
    word: Annotated[list[str] | None, typer.Option(help="A further word that may not appear; repeat it.")] = None,
) -> None:
    """List what points at a patient or a slide file; exit status 1 if anything does."""
    from hepipe.slides.deid import private_words, scan

    rows = folder / "private" if private is None else private
    words = private_words(rows, results=folder)
    words |= dict.fromkeys(word or [], "a word given with --word")
    if not words:
        typer.echo(
            f"hepipe: no file name to look for: {rows} has no rows, or their slides lie in the results themselves; "
            "vendor keys, dates and absolute paths are looked for",
            err=True,
        )
    findings = scan(folder, words=words, skip=rows)
    for finding in findings:
        typer.echo(f"{finding.file}: {finding.what}")
    typer.echo(f"{len(findings)} finding(s), {len(words)} private word(s) looked for")
    if findings:
        raise typer.Exit(1)


def sheet_acrobat(
    meta: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The set's table df_acrobat_meta.csv.")],
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Where its slides lie.")],
    out: Annotated[Path, typer.Option(help="The slide sheet to write.")],
    marker: Annotated[str, typer.Option(help="Which stain is paired with H&E.")] = "HER2",
) -> None:
    """Write the slide sheet of ACROBAT: its H&E slides, each with the patient's slide of one marker."""
    from hepipe.importers.acrobat import write_acrobat_sheet

    n_pairs, n_without = write_acrobat_sheet(meta, folder, out, marker=marker)
    typer.echo(f"{out}: {n_pairs} pairs; {n_without} patients have no H&E and {marker} file in {folder}")
