"""What every section of the configuration is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A section of the configuration: unknown keys fail, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def merged(base: Mapping[str, Any], over: Any) -> Any:
    """`base` with the keys of `over` in their place, section by section; an `over` that is no mapping stands alone."""
    if not isinstance(over, Mapping):
        return over
    both = dict(base)
    for key, value in over.items():
        both[key] = merged(base[key], value) if isinstance(base.get(key), Mapping) else value
    return both
