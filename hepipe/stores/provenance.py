"""What every artefact says about itself: how it was made, from what, and the case's verdict so far."""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hepipe import __version__
from hepipe.status import OK, CaseStatus


class Provenance(BaseModel):
    """Stands in the metadata of each artefact. Holds ids and hashes, never a file name or a path."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    artefact: str = Field(description="What this is, such as `tiles` or `registered`.")
    subject: str = Field(description="Case, dataset or run it belongs to.")
    spec: dict[str, Any] = Field(default_factory=dict, description="The config section it was made with.")
    inputs: dict[str, str] = Field(default_factory=dict, description="Name of each input and its digest.")
    told: dict[str, Any] = Field(default_factory=dict, description="What the stage says of its rules, and counts.")
    status: CaseStatus = OK
    version: str = __version__


def digest(value: object) -> str:
    """SHA-256 of a JSON value; the same for the same content, whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def code_version() -> str:
    """The package's version, and the commit where it runs from a checkout; `changed` where files differ from it."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return f"hepipe {__version__}"
    git = ["git", "-c", f"safe.directory={root}", "-C", str(root)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        asked = [*git, "status", "--porcelain", "--untracked-files=no", "--", "hepipe"]
        is_changed = bool(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return f"hepipe {__version__}, commit unknown: git does not run here"
    return f"hepipe {__version__}, commit {commit}{', changed' if is_changed else ''}"
