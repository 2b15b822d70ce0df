"""A registration that travelled with a data set, in place of a new one: regeneration starts from it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from hepipe.errors import RegistrationError, StoreError
from hepipe.status import OK
from hepipe.stores.arrays import Registered, read_registered
from hepipe.stores.cases import CheckedCase, SlideFacts
from hepipe.stores.provenance import Provenance

TAKEN = "taken from the data set that it travelled with; this run's section `registration` counts for nothing"


def stored_transform(folder: Path, case: CheckedCase) -> Registered:
    """The stored registration of a case, with the section and version that it was found with.

    Args:
        folder: Of the data set, or what `hepipe dataset pack` made of it: `registered/<case>.zarr` lies there.
        case: Its slides must have the content that the registration was found on.

    Returns:
        Its status is what registration had said, a doubt that the slide sheet overrules now taken back.

    Raises:
        RegistrationError: None is there, it is damaged, or it is of other slides.
    """
    path = folder / "registered" / f"{case.case_id}.zarr"
    if not path.exists():
        raise RegistrationError(
            case.case_id,
            "no stored transform of this case: no registered/<case>.zarr in the folder of key transforms; copy it "
            "there, or take the key out and register",
        )
    try:
        found = read_registered(path)
    except StoreError as error:
        # What it says of the damage, without the folder's name.
        raise RegistrationError(
            case.case_id, f"its stored transform is unusable: {str(error).removeprefix(f'{path}: ')}"
        ) from None
    made = found.provenance
    if made.subject != case.case_id:
        raise RegistrationError(case.case_id, f"its stored transform is that of case {made.subject[:64]}")
    transform = found.ihc_from_he
    for stain, name, facts, mpp in (
        ("he", "H&E", case.he, None if transform is None else transform.fixed_mpp),
        ("ihc", "IHC", case.ihc, None if transform is None else transform.moving_mpp),
    ):
        _refuse_another(case.case_id, name, facts, stated=made.inputs.get(stain), mpp=mpp)
    own = made.status if made.status.stage == "registration" else OK
    if own.state == "review" and case.accepted == "yes":
        own = OK
    inputs = {stain: made.inputs[stain] for stain in ("he", "ihc") if stain in made.inputs}
    return replace(
        found,
        provenance=Provenance(
            artefact=made.artefact,
            subject=made.subject,
            spec=made.spec,
            inputs=inputs,
            told={**made.told, "transform": TAKEN},
            status=own,
            version=made.version,
        ),
    )


def _refuse_another(
    case_id: str, name: str, facts: SlideFacts | None, *, stated: str | None, mpp: float | None
) -> None:
    """Stop where a slide is not the one that the transform was found on.

    Raises:
        RegistrationError: Says which, and both digests.
    """
    own = None if facts is None else facts.content_sha256
    if own != stated:
        raise RegistrationError(
            case_id,
            f"its stored transform is of another {name} slide: content {_short(stated)} there, {_short(own)} here; "
            "give the slide that it was found on, or take key transforms out and register",
        )
    if facts is not None and mpp is not None and not math.isclose(facts.mpp, mpp, rel_tol=1e-9):
        raise RegistrationError(
            case_id,
            f"its stored transform takes a px of the {name} slide for {mpp:g} µm, and it is {facts.mpp:g} here; write "
            f"{mpp:g} into the column of its pixel size in the slide sheet",
        )


def _short(content: str | None) -> str:
    return "unknown" if content is None else content[:16]
