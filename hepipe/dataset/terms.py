"""Under which terms tiles may be used: they travel into cards, finished models and exports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import Field

from hepipe.specs.base import Spec


class Terms(Spec):
    """What is known of one set's terms."""

    source_set: str = Field(description="Kind of the imported set, such as bci.")
    line: str = Field(description="The terms in a sentence, and how sure they are.")
    texts: Mapping[str, str] = Field(
        default_factory=dict, description="Name of each licence or readme file that lay with the set, and its text."
    )


def merged_terms(*several: Iterable[Terms]) -> tuple[Terms, ...]:
    """Terms of all, each once, by set: what is made of several sets is under the terms of each."""
    found = {(one.source_set, one.line, tuple(sorted(one.texts.items()))): one for terms in several for one in terms}
    return tuple(found[key] for key in sorted(found))


def told_terms(told: Mapping[str, Any]) -> tuple[Terms, ...]:
    """The terms that an artefact's provenance tells; none where it tells none."""
    return tuple(Terms.model_validate(one) for one in told.get("terms", ()))


def as_told(terms: Sequence[Terms]) -> dict[str, Any]:
    """Terms as provenance tells them; nothing where there are none, so that other artefacts stay as they were."""
    return {"terms": [one.model_dump(mode="json") for one in terms]} if terms else {}
