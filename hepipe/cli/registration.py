"""Commands of a pair's geometry: register, tissue, picture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepipe.cli.options import Checked, InPath, MppHe, MppIhc, OutPath, SlidePath, SpecJson
from hepipe.cli.pairs import open_given, open_pair
from hepipe.errors import ConfigError, RegistrationError, SlideError
from hepipe.specs.registration import Section
from hepipe.status import OK, CaseStatus, failed

if TYPE_CHECKING:
    from hepipe.slides.reader import Slide
    from hepipe.specs.registration import RegistrationSpec
    from hepipe.stores.cases import CheckedCase, SlideFacts


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("register")(register_case)
    app.command("tissue")(find_tissue)
    app.command("picture")(picture_case)


def register_case(
    he: SlidePath,
    ihc: SlidePath,
    transform: OutPath,
    checked: Checked = None,
    landmarks: Annotated[str, typer.Option(help="CSV of x_he,y_he,x_ihc,y_ihc in px0, or HE.csv;IHC.csv.")] = "",
    mpp_he: MppHe = "",
    mpp_ihc: MppIhc = "",
    section: Annotated[Section, typer.Option(help="Same section stained again, or the next; without --checked.")] = (
        "restained"
    ),
    pieces: Annotated[
        str, typer.Option(help="A word on pieces of tissue, such as 'ihc3=control he2=missing'; without --checked.")
    ] = "",
    stored: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of a data set whose stored transform is taken in place of a new one."),
    ] = None,
    spec: SpecJson = "{}",
) -> None:
    """Bring the IHC slide onto the H&E slide."""
    from hepipe.registration.landmarks import read_landmarks
    from hepipe.registration.register import Registration
    from hepipe.registration.register import register as bring_together
    from hepipe.specs.registration import RegistrationSpec
    from hepipe.stores.arrays import write_registered
    from hepipe.stores.cases import read_checked
    from hepipe.stores.provenance import Provenance

    settings = RegistrationSpec.model_validate_json(spec)
    if checked is not None and (mpp_he or mpp_ihc):
        raise ConfigError("--mpp-he and --mpp-ihc go without --checked, which holds both")
    if checked is not None and pieces:
        raise ConfigError("--pieces goes without --checked, which holds the sheet's cell")
    case = None if checked is None else read_checked(checked)
    if stored is not None:
        if case is None:
            raise ConfigError("--from goes with --checked, which says whose slides these are")
        _take_stored(stored, case, transform, settings)
        return
    subject = "case" if case is None else case.case_id
    status = OK if case is None else case.provenance.status
    result = Registration(None, None, status)
    if not status.failed:
        try:
            opened = open_given(he, ihc, mpp_he, mpp_ihc) if case is None else open_pair(he, ihc, case)
            with opened as (fixed, moving):
                result = bring_together(
                    fixed,
                    moving,
                    settings,
                    case_id=subject,
                    section=section if case is None else case.section,
                    landmarks=read_landmarks(subject, landmarks, he=fixed, ihc=moving) if landmarks else None,
                    pieces=pieces if case is None else case.pieces or "",
                    from_landmarks=case is not None and case.start == "landmarks",
                    accepted=None if case is None else case.accepted,
                )
        except SlideError as error:
            result = Registration(None, None, failed("slides", error.reason))
        except RegistrationError as error:
            result = Registration(None, None, failed("registration", error.reason))
    write_registered(
        transform,
        Provenance(
            artefact="registered",
            subject=subject,
            spec=settings.model_dump(mode="json"),
            inputs={} if case is None else _digests(case),
            status=status.then(result.status),
        ),
        ihc_from_he=result.ihc_from_he,
        he_from_ihc=result.he_from_ihc,
        summary=result.summary,
        proposed=result.proposed,
        evidence=result.evidence,
    )
    for line in _told(subject, status.then(result.status), result.summary):
        typer.echo(line)


def _take_stored(folder: Path, case: CheckedCase, transform: Path, settings: RegistrationSpec) -> None:
    """Write the registration that travelled with a data set; one that is not of these slides fails the case."""
    from hepipe.registration.stored import stored_transform
    from hepipe.stores.arrays import Registered, write_registered
    from hepipe.stores.provenance import Provenance

    made = Provenance(
        artefact="registered", subject=case.case_id, spec=settings.model_dump(mode="json"), inputs=_digests(case)
    )
    status = case.provenance.status
    found = Registered(made, None, None, {})
    if not status.failed:
        try:
            found = stored_transform(folder, case)
            status = status.then(found.provenance.status)
        except RegistrationError as error:
            status = failed("registration", error.reason)
    write_registered(
        transform,
        found.provenance.model_copy(update={"status": status}),
        ihc_from_he=found.ihc_from_he,
        he_from_ihc=found.he_from_ihc,
        summary=found.summary,
        proposed=found.proposed,
        evidence=found.evidence,
    )
    for line in _told(case.case_id, status, {}):
        typer.echo(line)
    if not status.failed:
        typer.echo(f"  the stored transform {found.digest[:16]} is taken, nothing was registered")


def find_tissue(
    he: SlidePath,
    ihc: SlidePath,
    checked: InPath,
    transform: InPath,
    tissue: OutPath,
    outlines: Annotated[
        Path | None, typer.Option(help="Written: GeoJSON for QuPath of tissue, what was taken out, and regions.")
    ] = None,
    regions: Annotated[Path | None, typer.Option(help="QuPath GeoJSON of regions on the H&E slide.")] = None,
    spec: SpecJson = "{}",
) -> None:
    """Find the tissue that both slides of a pair show, and the regions that a person outlined."""
    from hepipe.registration.common import common_tissue, stored_pieces
    from hepipe.specs.slides import TissueSpec
    from hepipe.stores.arrays import read_registered, write_tissue
    from hepipe.stores.cases import read_checked
    from hepipe.stores.provenance import Provenance
    from hepipe.tissue.outlines import geojson, write_outlines
    from hepipe.tissue.regions import read_regions

    settings = TissueSpec.model_validate_json(spec)
    case = read_checked(checked)
    registered = read_registered(transform)
    status = registered.provenance.status
    masks, mpp, summary = {}, settings.mpp, {}
    inputs = {**_digests(case), "transform": registered.digest}
    drawn = geojson({}, px0_from_px=1.0, size_px0=(0, 0))
    if registered.ihc_from_he is not None and not status.failed:
        try:
            with open_pair(he, ihc, case) as (fixed, moving):
                outlined = None
                if regions is not None:
                    outlined = read_regions(
                        regions,
                        slide_id=fixed.slide_id,
                        size_px0=fixed.size_px0,
                        names=settings.region_names,
                        mpp=fixed.mpp,
                    )
                    inputs["regions"] = outlined.sha256
                numbered = stored_pieces(registered)
                found = common_tissue(
                    fixed, moving, registered.ihc_from_he, settings, numbered=numbered, regions=outlined
                )
                px0_from_px, size_px0 = found.mpp / fixed.mpp, fixed.size_px0
            mpp, summary = found.mpp, found.summary
            reason = found.unusable()
            if reason:
                status = status.then(failed("tissue", reason))
            else:
                masks = found.masks
                drawn = geojson(found.areas(), px0_from_px=px0_from_px, size_px0=size_px0)
        except SlideError as error:
            status = status.then(failed("tissue", error.reason))
    write_tissue(
        tissue,
        Provenance(
            artefact="tissue",
            subject=case.case_id,
            spec=settings.model_dump(mode="json"),
            inputs=inputs,
            status=status,
        ),
        masks=masks,
        mpp=mpp,
        summary=summary,
    )
    if outlines is not None:
        write_outlines(outlines, drawn)
    typer.echo(f"{case.case_id}: {status.state}{f', {status.reason}' if status.reason else ''}")
    for note in summary.get("regions", {}).get("notes", ()):
        typer.echo(f"  regions: {note}")


def picture_case(
    he: SlidePath,
    ihc: SlidePath,
    checked: InPath,
    transform: InPath,
    tissue: InPath,
    index: InPath,
    verdict: InPath,
    pictures: Annotated[Path, typer.Option(help="Written: a folder of pictures and facts.json.")],
) -> None:
    """Draw the pictures of a case that the report shows."""
    from hepipe.registration.grid_picture import Tile
    from hepipe.registration.pictures import draw_case
    from hepipe.stores.arrays import read_registered, read_taken_out, read_tissue
    from hepipe.stores.cases import read_checked
    from hepipe.stores.tables import TILES, VERDICTS, read_provenance, read_table

    case = read_checked(checked)
    keep = {row["tile_id"]: row["keep"] for row in read_table(verdict, VERDICTS)}
    tile_px = int(read_provenance(index).spec.get("tile_px", 0))
    tiles = [
        Tile(row["x_px0"], row["y_px0"], tile_px * row["mpp"], keep[row["tile_id"]], row["region"], row["place"])
        for row in read_table(index, TILES)
    ]
    with contextlib.ExitStack() as stack:
        fixed, moving = (_open_one(path, facts, case, stack) for path, facts in ((he, case.he), (ihc, case.ihc)))
        draw_case(
            fixed,
            moving,
            case_id=case.case_id,
            registered=read_registered(transform),
            tissue=read_tissue(tissue),
            tiles=tiles,
            folder=pictures,
            taken_out=read_taken_out(tissue),
        )


def _told(subject: str, status: CaseStatus, summary: Mapping[str, Any]) -> Iterator[str]:
    """What a registration came to, for a person at the terminal or over a log."""
    yield f"{subject}: {status.state}{f', {status.reason}' if status.reason else ''}"
    for step in summary.get("chain", ()):
        kept = "" if step["kept"] else ", not taken"
        note = f" ({step['note']})" if step["note"] else ""
        yield f"  {step['step']}: similarity {step['score_before']:.3f} to {step['score_after']:.3f}{kept}{note}"
    if "scale" in summary:
        mirrored = ", mirrored" if summary["mirrored"] else ""
        yield f"  turned {summary['rotation_deg']:.1f} degrees, size {summary['scale']:.4f}{mirrored}"
    unit = summary.get("unit", "µm")
    if residuals := summary.get("residuals"):
        yield (
            f"  windows still see {residuals['p50_um']:.2f} {unit} (median), {residuals['p90_um']:.2f} (p90); "
            f"{residuals['kept_frac']:.0%} agree"
        )
    if error := summary.get("landmarks"):
        yield (
            f"  {error['n']} landmarks: {error['tre_um']['median']:.2f} {unit} off (median), was "
            f"{error['tre_before_um']['median']:.2f}; {error['rtre']['median']:.3%} of the diagonal"
        )
        yield from (f"  {note}" for note in error["notes"])
    apart = [
        f"{one['stain']}{one['number']} {one['role']}" for one in summary.get("pieces", ()) if one["role"] != "matched"
    ]
    if apart:
        yield f"  pieces taken out: {', '.join(apart)}"


def _open_one(path: Path, facts: SlideFacts | None, case: CheckedCase, stack: contextlib.ExitStack) -> Slide | None:
    """A slide of a case that may have failed; None where it cannot be shown."""
    from hepipe.slides.open import open_slide
    from hepipe.specs.slides import SlidesSpec

    if facts is None:
        return None
    spec = SlidesSpec.model_validate(case.provenance.spec)
    try:
        slide = open_slide(path, slide_id=facts.slide_id, mpp=case.mpp_to_open(facts), spec=spec, reader=facts.reader)
    except SlideError:
        # The verdict of the stage that needed it names the reason; there is just no picture.
        return None
    stack.callback(slide.close)
    return slide


def _digests(case: CheckedCase) -> dict[str, str]:
    slides = (("he", case.he), ("ihc", case.ihc))
    return {name: facts.content_sha256 for name, facts in slides if facts is not None}
