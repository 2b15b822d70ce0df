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
    from hepipe.specs.synth import SynthSpec
    from hepipe.synth.case import write_case

    write_case(SynthSpec.model_validate_json(spec), number, folder)


@synth_app.command()
def pairs(folder: OutPath, spec: SpecJson = "{}") -> None:
    """Write aligned tile pairs of further patients: HE/{train,val,test} and IHC/{train,val,test}."""
    from hepipe.specs.synth import SynthSpec
    from hepipe.synth.pairs import write_pairs

    values = SynthSpec.model_validate_json(spec)
    typer.echo(f"{write_pairs(values, folder)} pairs of {values.pair_px} px")


@synth_app.command()
def probe(
    spec: SpecJson = "{}",
    tile_um: Annotated[float, typer.Option(help="Side of a tile, µm.")] = 128.0,
) -> None:
    """Print how well a linear probe on the nuclear truth of tiles predicts the score, patients held out."""
    from hepipe.sheet import SCORES
    from hepipe.specs.synth import SynthSpec
    from hepipe.synth.probe import probe as run_probe

    values = SynthSpec.model_validate_json(spec)
    found = run_probe(values, tile_um=tile_um)
    typer.echo(f"patients {values.patients}, tiles {found.n_tiles} of {tile_um:g} µm, one patient held out at a time")
    typer.echo(f"accuracy of a tile     {found.accuracy:.3f}  (chance 0.25)")
    typer.echo(f"right or one score off {found.within_one:.3f}")
    typer.echo(f"accuracy of a patient  {found.case_accuracy:.3f}")
    typer.echo("true \\ given  " + "".join(f"{score:>7}" for score in SCORES))
    for score, counts in zip(SCORES, found.confusion, strict=True):
        typer.echo(f"{score:>12}  " + "".join(f"{count:7d}" for count in counts))
