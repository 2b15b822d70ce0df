"""The command `import`: a tile set made elsewhere comes into the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hepipe.cli.options import SpecJson
from hepipe.cli.tiles import LearnedJson, StoreJson, Workers

if TYPE_CHECKING:
    from hepipe.importers.pairs import TileSet
    from hepipe.specs.imports import ImportSpec
    from hepipe.specs.tiling import StoreSpec
    from hepipe.stores.codecs import Passthrough

Kind = Annotated[str, typer.Argument(help="bci, bci-clean, mist, her2match, ihc4bc, folder or aligned.")]
SetPath = Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of the set.")]
OutFolder = Annotated[Path, typer.Option(help="Results folder of the data set, such as results/bci.")]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("import")(import_set)


def import_set(
    kind: Kind,
    path: SetPath,
    out: OutFolder,
    preset: Annotated[str | None, typer.Option(help="How the set is divided: docs/imports.md.")] = None,
    he: Annotated[str | None, typer.Option(help="Folder of H&E tiles, where it is not called HE.")] = None,
    ihc: Annotated[str | None, typer.Option(help="Folder of IHC tiles, where it is not called IHC.")] = None,
    mpp: Annotated[float | None, typer.Option(help="µm per px of the files, where the set is known otherwise.")] = None,
    marker: Annotated[str | None, typer.Option(help="HER2, ER, PR or Ki67.")] = None,
    halve: Annotated[bool, typer.Option("--halve", help="Half the resolution, by area.")] = False,
    quarter: Annotated[bool, typer.Option("--quarter", help="Four tiles of each.")] = False,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Drop names without a partner.")] = False,
    cases: Annotated[Path | None, typer.Option(help="CSV with columns name, case.")] = None,
    scores: Annotated[Path | None, typer.Option(help="CSV with columns slide, score.")] = None,
    names: Annotated[
        Path | None, typer.Option("--list", "--names", help="Names to keep of bci-clean, text or CSV.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Label file of ihc4bc.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of what a preset draws.")] = None,
    spec: SpecJson = "{}",
    stains_spec: SpecJson = "{}",
    store_spec: StoreJson = "{}",
    learned: LearnedJson = "",
    workers: Workers = 1,
) -> None:
    """Bring in a set of paired tiles made elsewhere, measured as our own."""
    from hepipe.cli.measuring import case_measures, found_stains, network_inputs, open_network, say_stains
    from hepipe.dataset.cases import IMPORTED
    from hepipe.importers.kinds import open_set
    from hepipe.importers.pairs import import_tiles, sample_pixels
    from hepipe.importers.records import summary, write_contact_sheet, write_names
    from hepipe.importers.tileset import Inputs
    from hepipe.specs.imports import FILES
    from hepipe.specs.stains import StainsSpec
    from hepipe.specs.tiling import StoreSpec
    from hepipe.stores.cases import CaseStains, write_stains
    from hepipe.stores.provenance import Provenance, digest
    from hepipe.stores.tables import TILES, write_table
    from hepipe.stores.tiles import TileWriter
    from hepipe.tiling.cut import ARRAYS

    given = {"kind": kind, "preset": preset, "mpp": mpp, "marker": marker, "seed": seed, "he": he, "ihc": ihc}
    flags = {"halve": halve, "quarter": quarter, "allow_missing": allow_missing}
    files = {"cases": cases, "scores": scores, "names": names, "labels": labels}
    wanted = _spec(spec, {**given, **{name: True for name, on in flags.items() if on}, **files})
    staining, storing = StainsSpec.model_validate_json(stains_spec), StoreSpec.model_validate_json(store_spec)
    found = open_set(path, wanted, Inputs(**files))
    for line in summary(found.told):
        typer.echo(line)
    as_kept, passthrough = _codecs(found, storing)
    told = dict(found.told)
    if len(passthrough) < 2 and (as_kept.otherwise if passthrough else as_kept.codec) == "jpeg":
        lossy = "store.codec jpeg: tiles that are not kept as they are lose by it, those of JPEG files a second time"
        told["warnings"] = [*told["warnings"], lossy]
        typer.echo(f"warning: {lossy}")
    network = open_network(learned, tile_px=found.tile_px, mpp=found.mpp)
    of_he, of_ihc = sample_pixels(found, staining.sample_tiles)
    record = CaseStains(
        case_id=IMPORTED,
        he=found_stains(of_he, of_he, "he", staining),
        ihc=found_stains(of_ihc, of_ihc, "ihc", staining),
        provenance=Provenance(artefact="stains", subject=IMPORTED, spec=staining.model_dump(mode="json")),
    )
    provenance = Provenance(
        artefact="tiles",
        subject=IMPORTED,
        spec=wanted.model_dump(mode="json", exclude=set(FILES)),
        inputs={"stains": digest(record.model_dump(mode="json")), **network_inputs(network), **_digests(files)},
        told=told,
    )
    measures, dab_mask = case_measures(record, wanted.section, network)
    with TileWriter(
        out / "tiles" / f"{IMPORTED}.zarr",
        provenance,
        mpp=found.mpp,
        tile_px=found.tile_px,
        arrays=ARRAYS,
        spec=as_kept,
        passthrough=passthrough,
        key=digest(sorted([pair.tile_id, pair.split, *pair.stamp] for pair in found.pairs)),
    ) as store:
        rows = import_tiles(found, wanted, measures=measures, dab_mask=dab_mask, store=store, workers=workers)
        write_stains(out / "stains" / f"{IMPORTED}.json", record)
        write_contact_sheet(out / "pictures" / IMPORTED / "contact.png", found, seed=wanted.seed)
        # Beside the results and not within: it names files.
        private = out.parent / "private" / out.name / "imported.csv"
        write_names(private, path, [*found.pairs, *found.dropped])
        # The table before the store: one in its place is not gone on with.
        write_table(rows, out / "tiles" / f"{IMPORTED}.parquet", TILES, provenance)
        store.finish()
    say_stains(record)
    left_out = sum(row["problem"] != "" for row in rows)
    typer.echo(f"{len(rows) - left_out} tiles of {found.tile_px} px imported, {left_out} left out")


def _spec(text: str, given: dict[str, Any]) -> ImportSpec:
    """The section with what the command line says over it."""
    import json

    from pydantic import ValidationError

    from hepipe.errors import ConfigError
    from hepipe.specs.imports import ImportSpec

    said = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    try:
        section = json.loads(text)
        over = {name: value for name, value in said.items() if value is not None}
        return ImportSpec.model_validate({**section, **over})
    except ValidationError as error:
        told = [
            f"{'.'.join(map(str, one['loc'])) or 'import'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ConfigError("import: " + "; ".join(told)) from None
    except (ValueError, TypeError):
        raise ConfigError("import: --spec is no JSON object") from None


def _digests(files: dict[str, Path | None]) -> dict[str, str]:
    """What a person's files say, by digest: their names stay out of artefacts."""
    import hashlib

    from hepipe.errors import ConfigError

    found = {}
    for name, file in files.items():
        if file is not None:
            try:
                found[name] = hashlib.sha256(file.read_bytes()).hexdigest()
            except OSError as error:
                raise ConfigError(f"import.{name}: cannot be read ({error.strerror})") from None
    return found


def _codecs(found: TileSet, storing: StoreSpec) -> tuple[StoreSpec, dict[str, Passthrough]]:
    """The store's settings, with files kept as they are where they can be."""
    from hepipe.stores.codecs import Passthrough

    otherwise = storing.otherwise if storing.codec == "passthrough" else storing.codec
    if not found.passes:
        return storing.model_copy(update={"codec": otherwise}), {}
    codec = Passthrough((found.tile_px, found.tile_px))
    update = {"codec": "passthrough", "otherwise": otherwise}
    return storing.model_copy(update=update), dict.fromkeys(found.passes, codec)
