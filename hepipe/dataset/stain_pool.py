"""Stain vectors of each staining batch, pooled over the slides that have their own.

A slide with almost no DAB says nothing about its vectors. It takes those that the config gives for its batch, so that
no case waits for another; this proposes them, from the records of the cases that are done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from hepipe.dataset.stain_prior import PriorStains, median_stains
from hepipe.errors import ConfigError
from hepipe.specs.base import Spec
from hepipe.stores.cases import CaseStains, read_stains

FEW = 3
"""The median of fewer slides is no protection against an odd one."""


class BatchPool(Spec):
    """The IHC slides of one staining batch; `batch` is None for those whose batch is not known."""

    batch: str | None
    stains: PriorStains | None = Field(description="The median; None where no slide has plausible vectors of its own.")
    cases: tuple[str, ...] = Field(description="Whose slide has.")
    without: tuple[str, ...] = Field(description="Whose slide has none: it takes what is proposed here.")


def read_records(folder: Path) -> list[CaseStains]:
    """The records of stains of a data set, by case.

    Args:
        folder: The data set's folder of results.

    Raises:
        ConfigError: No case has one yet.
        StoreError: One is of another version.
    """
    paths = sorted((folder / "stains").glob("*.json"))
    if not paths:
        raise ConfigError(f"{folder.name}: no case has stains/*.json yet; run estimate_stains for some first")
    return [read_stains(path) for path in paths]


def pool(records: Sequence[CaseStains]) -> list[BatchPool]:
    """The median of each batch, by name, slides of unknown batch first; cases that failed before do not count."""
    slides: dict[str | None, list[CaseStains]] = {}
    for record in sorted(records, key=lambda record: record.case_id):
        if record.ihc is not None:
            slides.setdefault(record.batch, []).append(record)
    pools = []
    for batch in sorted(slides, key=lambda name: (name is not None, name or "")):
        found = [(record.case_id, record.ihc) for record in slides[batch] if record.ihc is not None]
        own = tuple(case_id for case_id, ihc in found if ihc.method not in ("fixed", "batch"))
        whites = [ihc.white for _, ihc in found if ihc.white_from == "slide"]
        pools.append(
            BatchPool(
                batch=batch,
                stains=median_stains([ihc for _, ihc in found], whites),
                cases=own,
                without=tuple(case_id for case_id, _ in found if case_id not in own),
            )
        )
    return pools


def as_yaml(pools: Sequence[BatchPool]) -> str:
    """The proposal as text for the config; what cannot be proposed stands in comments, with the reason."""
    lines = []
    for one in pools:
        stains = one.stains
        needing = f"; for {', '.join(one.without)}" if one.without else "; no case needs them now"
        if stains is None:
            name = "slides of unknown batch" if one.batch is None else f"batch {_quoted(one.batch)}"
            lines.append(f"    # {name}: none of its slides has vectors of its own{needing}")
        elif one.batch is None:
            n_slides = len(one.cases) + len(one.without)
            lines.append(f"    # slides without a batch, {n_slides}: fill the column `batch` of the sheet{needing}")
        else:
            many = f"{stains.n_vectors} slide{'s' * (stains.n_vectors > 1)}"
            few = f", {FEW} or more are better" if stains.n_vectors < FEW else ""
            turned = f", all within {max(stains.most_turn_deg):.1f} degrees" if stains.n_vectors > 1 else ""
            lines += [
                f"    {_quoted(one.batch)}:  # median of {many}{turned}{few}{needing}",
                f"      haematoxylin: {list(stains.first)}",
                f"      dab: {list(stains.second)}",
            ]
            lines += [f"      white: {list(stains.white)}"] if stains.n_white else []
    proposed = any(not line.lstrip().startswith("#") for line in lines)
    head = ["stains:", "  batches:" if proposed else "  batches: {}  # nothing to propose"]
    return "\n".join([*head, *lines]) + "\n"


def _quoted(name: str) -> str:
    """A JSON text is a YAML text too, whatever stands in it."""
    return json.dumps(name)
