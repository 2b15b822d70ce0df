"""Commands that draw the synthetic cohort."""

from __future__ import annotations

from typing import Annotated

import typer

from hepipe.cli.options import OutPath, SpecJson

synth_app = typer.Typer(no_args_is_help=True, help="Draw synthetic slide pairs with their truth.")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.add_typer(synth_app, name="synth")


@synth_app.command()
def case(
    number: Annotated[int, typer.Option(help="Which case: 1 is the first, s<seed>-001.")],
    folder: OutPath,
    spec: SpecJson = "{}",
) -> None:
    """Write he.tif, ihc.tif, landmarks.csv and truth.zarr of one case."""
    from hepipe.config import SynthSpec
    from hepipe.synth.case import write_case

    write_case(SynthSpec.model_validate_json(spec), number, folder)


@synth_app.command()
def pairs(folder: OutPath, spec: SpecJson = "{}") -> None:
    """Write aligned tile pairs of further patients: HE/{train,val,test} and IHC/{train,val,test}."""
    from hepipe.config import SynthSpec
    from hepipe.synth.pairs import write_pairs

    values = SynthSpec.model_validate_json(spec)
    typer.echo(f"{write_pairs(values, folder)} pairs of {values.pair_px} px")
