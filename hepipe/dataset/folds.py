"""Grouped k-fold: the index of one fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hepipe.dataset.splits import split_of_fold
from hepipe.errors import ConfigError
from hepipe.stores.tables import read_provenance


def index_of_fold(
    rows: Sequence[Mapping[str, Any]], fold: int, *, folds: int | None, where: str
) -> list[dict[str, Any]]:
    """The same tiles with the splits that a run of this fold sees.

    Args:
        rows: Of the index of a data set with folds.
        fold: Tested on; the next one validates, the others train.
        folds: How many the data set was divided into; None for none.
        where: The index, in words of an error.

    Raises:
        ConfigError: The data set has no folds, or not so many.
    """
    if folds is not None and any(row["fold"] is None for row in rows):
        raise ConfigError(
            f"{where}: is of an imported set, which keeps the splits it came with; splits.folds says nothing"
        )
    if folds is None:
        raise ConfigError(f"{where}: has no folds; set splits.folds in the config and assemble the data set again")
    if not 0 <= fold < folds:
        raise ConfigError(f"{where}: has folds 0 to {folds - 1}, no fold {fold}")
    return [{**row, "split": split_of_fold(row["fold"], test=fold, folds=folds)} for row in rows]


def check_fold(index: Path, fold: int | None, *, dataset: str | None = None) -> None:
    """Whether an index is the one that a run's `fold` asks for.

    Args:
        index: Of a data set, or of one of its folds.
        fold: Of the run.
        dataset: That the run was trained on; the index of another one has no fold to be. None: this one.

    Raises:
        ConfigError: It has the splits of another fold, so that the run would train on tiles that it is tested on.
    """
    made = read_provenance(index)
    told = made.told.get("fold")
    if dataset not in (None, made.subject):
        fold = None
    if told != fold:
        raise ConfigError(
            f"{index}: has the splits of {'no fold' if told is None else f'fold {told}'}, the run asks for "
            f"{'none' if fold is None else f'fold {fold}'}; write its index by `hepipe fold` and give that one"
        )
