"""The section `import` of a data set made elsewhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hepipe.specs.base import Spec
from hepipe.specs.dataset import Split


class ImportSpec(Spec):
    """A tile set made elsewhere."""

    revision: Literal[2] = 2
    kind: Literal["folder", "aligned"] = Field(
        description="folder: two folders, paired by name; aligned: H&E left, IHC right in one picture."
    )
    path: str = Field("", description="Folder of the set, relative to `data`. A path: it stays out of artefacts.")
    he: str = Field("HE", description="kind folder: folder of H&E tiles inside `path`.")
    ihc: str = Field("IHC", description="kind folder: folder of IHC tiles inside `path`.")
    mpp: float = Field(gt=0, description="µm per px of the tiles: these files carry none.")
    marker: str = "HER2"
    section: Literal["restained", "consecutive"] = "consecutive"
    score_pattern: str | None = Field(None, description="Regular expression with one group: the score in a file name.")
    case_pattern: str | None = Field(None, description="Regular expression with one group: the case in a file name.")
    split: Split = Field("test", description="Split of tiles that lie in no folder train, val or test.")
    allow_missing: bool = Field(False, description="Drop names that stand on one side only, instead of an error.")
