"""What tests of `train` and `predict` by hand share: the commands, and data sets with a card."""

from pathlib import Path

import typer
from typer.testing import CliRunner

from hepipe.cli import learn
from hepipe.dataset.card import DatasetCard, write_card
from hepipe.dataset.terms import Terms
from hepipe.errors import HepipeError
from hepipe.stores.provenance import Provenance

FEW = ("--set", "n_steps=2", "--set", "batch_size=2", "--set", "threads=1", "--device", "cpu")


def with_card(index: Path, *, fingerprint: str = "abc") -> Path:
    """The folder of a data set, which then has a card too."""
    write_card(
        index.parent / "dataset.json",
        DatasetCard(
            name=index.parent.name,
            fingerprint=fingerprint,
            n_tiles=1,
            n_kept=1,
            cases=(),
            splits={},
            warnings=(),
            terms=(Terms(source_set="bci", line="non-commercial"),),
            provenance=Provenance(artefact="dataset", subject=index.parent.name),
        ),
    )
    return index.parent


def hepipe(*words: object) -> tuple[int, str]:
    """Exit status and everything that is printed; a HepipeError as the command line shows it."""
    app = typer.Typer()
    learn.register(app)
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, HepipeError):
        return 2, f"{result.output}hepipe: {result.exception}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output
