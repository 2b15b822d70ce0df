"""A data set by what a person points at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hepipe.dataset.card import DatasetCard, read_card
from hepipe.errors import StoreError
from hepipe.stores.tables import read_provenance

INDEX_FILE = "index.parquet"


@dataclass(frozen=True)
class FoundDataset:
    """A data set on disk.

    Attributes:
        index: Of it, or of one of its folds.
        card: What it says of itself.
        fold: That the index is of; None for the data set's own splits.
    """

    index: Path
    card: DatasetCard
    fold: int | None


def find_dataset(place: Path) -> FoundDataset:
    """The data set of a folder with `index.parquet`, or of an index itself.

    Raises:
        StoreError: There is none, or one without pixels; it says what to do.
    """
    if place.is_file() and place.suffix == ".parquet":
        index = place
    elif place.is_dir():
        index = place / INDEX_FILE
        if not index.is_file():
            raise StoreError(f"{place}: no {INDEX_FILE} in it; {_instead(place)}")
    else:
        raise StoreError(
            f"{place}: {'not an index' if place.exists() else 'nothing there'}; give the folder of a data set, such as "
            f"results/cohort, or its {INDEX_FILE}"
        )
    if (index.parent / "sections.json").is_file() and not (index.parent / "tiles").exists():
        raise StoreError(
            f"{index.parent}: a packed data set, which holds no pixels; set `transforms` of a data set in the config "
            "to this folder and let the workflow cut the tiles from the slides again, then give results/NAME"
        )
    fold = read_provenance(index).told.get("fold")
    return FoundDataset(index, read_card(index.parent / "dataset.json"), None if fold is None else int(fold))


def _instead(folder: Path) -> str:
    if (folder / "zarr.json").is_file():
        return "it is one tile store; give the folder of the data set that it belongs to, such as results/cohort"
    if any(path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff") for path in folder.iterdir()):
        return "a folder of pictures becomes a data set by `import` in the config, as docs/imports.md shows"
    return "give the folder of a data set, such as results/cohort; `hepipe assemble` writes the index"
