"""What every section of the configuration is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """A section of the configuration: unknown keys fail, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
