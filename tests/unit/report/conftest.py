"""A results folder as the pipeline leaves it, small."""

import numpy as np
import pytest
from PIL import Image

from hepipe.dataset.card import CardCase, CardSplit, DatasetCard, write_card
from hepipe.evaluation.features import Networks
from hepipe.evaluation.pairs import PairedTiles
from hepipe.evaluation.score import score_run
from hepipe.geometry import identity
from hepipe.metrics.catalog import METRICS
from hepipe.models.resolved import ResolvedRun, write_resolved
from hepipe.quality.funnel import Graded, data_set_funnel, write_funnel
from hepipe.specs.quality import QualitySpec
from hepipe.specs.training import EvaluationSpec, TrainingSpec
from hepipe.stains.matrices import DAB, EOSIN, HAEMATOXYLIN, stain_matrix
from hepipe.status import OK, CaseStatus
from hepipe.stores.arrays import write_registered
from hepipe.stores.cases import CheckedCase, SlideFacts, write_checked
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import HISTORY, INDEX, SCORES, TILES, VERDICTS, write_table
from hepipe.stores.tiles import TileWriter

SIDE = 48
MISSING = Networks(
    None, {m.weights: f"not computed: weights missing ({m.weights})" for m in METRICS.values() if m.weights}, {}
)


def stained(rng, strength, second=DAB, side=SIDE):
    y, x = np.mgrid[:side, :side]
    blobs = 0.5 + 0.5 * np.sin(x / rng.uniform(3, 6)) * np.cos(y / rng.uniform(3, 6))
    amounts = np.stack([0.1 + 0.3 * rng.random((side, side)), strength * blobs], -1)
    return np.round(255 * 10.0 ** -(amounts @ stain_matrix(HAEMATOXYLIN, second)[:2])).astype(np.uint8)


class Results:
    """Writes artefacts below a folder and collects the report's spec."""

    def __init__(self, folder, seed=0):
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.spec = {"title": "A report", "datasets": {}, "runs": {}, "bootstrap": 200}

    def dataset(self, name, cases, *, n_tiles=4, strength=0.7, note=""):
        """Cases as (case id, score, status); a failed one has no tiles."""
        folder = self.folder / name
        described, rows = [], []
        self.graded = []
        for number, (case_id, score, status) in enumerate(cases):
            rows_of_case = [] if status.failed else self._case(folder, case_id, score, number, n_tiles, strength)
            rows += rows_of_case
            described.append(
                CardCase(
                    case_id=case_id,
                    patient_id=f"P{number}",
                    her2_score=score,
                    split="test" if rows_of_case else None,
                    n_tiles=0 if status.failed else n_tiles,
                    n_kept=len(rows_of_case),
                    status=status,
                )
            )
        made = Provenance(artefact="dataset", subject=name, spec={"tiling": [{"mpp": 0.5}]})
        card = DatasetCard(
            name=name,
            fingerprint="f" * 64,
            n_tiles=sum(case.n_tiles for case in described),
            n_kept=len(rows),
            cases=tuple(described),
            splits={"test": CardSplit(tiles=len(rows), patients=len(cases), cases=len(cases), by_score={"0": 1})},
            warnings=("no val split: three patients are too few",),
            provenance=made,
        )
        write_card(folder / "dataset.json", card)
        write_funnel(folder / "funnel.json", data_set_funnel(name, self.graded))
        write_table(rows, folder / "index.parquet", INDEX, made)
        self.spec["datasets"][name] = {"kind": "slides", "cases": [case_id for case_id, _, _ in cases], "note": note}
        return self

    def _case(self, folder, case_id, score, number, n_tiles, strength):
        made = Provenance(artefact="tiles", subject=case_id)
        rows, verdicts = [], []
        arrays = {"he": 3, "ihc": 3, "dab_mask": 0}
        with TileWriter(folder / "tiles" / f"{case_id}.zarr", made, mpp=0.5, tile_px=SIDE, arrays=arrays) as writer:
            for at in range(n_tiles):
                ihc = stained(self.rng, strength * (1 + number))
                mask = ihc[..., 2] < 140 if strength else np.zeros((SIDE, SIDE), bool)
                writer.add(he=stained(self.rng, 0.3, EOSIN), ihc=ihc, dab_mask=mask)
                keep = at > 0
                rows.append(self._row(case_id, score, number, at))
                reason = "" if keep else "blur_he"
                verdicts.append(
                    {
                        "tile_id": f"{case_id}/{at}",
                        "keep": keep,
                        "reason": reason,
                        "flags": [reason] if reason else [],
                        "alignment": "aligned",
                    }
                )
            writer.finish()
        write_table(rows, folder / "tiles" / f"{case_id}.parquet", TILES, made)
        write_table(verdicts, folder / "verdict" / f"{case_id}.parquet", VERDICTS, made)
        told = {"n_cells": 3 * n_tiles, "n_tissue": n_tiles, "n_inside": n_tiles, "n_outside": 0}
        kept = frozenset(verdict["tile_id"] for verdict in verdicts if verdict["keep"])
        self.graded.append(Graded(case_id, "restained", score, rows, verdicts, told, QualitySpec(), kept, {}))
        chain = [{"step": "affine", "score_before": 0.1, "score_after": 0.5, "kept": True, "note": ""}]
        spread = {"tre_before_um": {"median": 120.0, "p90": 200.0}, "tre_um": {"median": 3.2, "p90": 7.0}, "n": 12}
        write_registered(
            folder / "registered" / f"{case_id}.zarr",
            Provenance(artefact="registered", subject=case_id),
            ihc_from_he=identity(fixed_mpp=0.5, moving_mpp=0.5),
            he_from_ihc=None,
            summary={"chain": chain, "similarity": 0.51, "landmarks": spread},
        )
        slide = SlideFacts(
            slide_id=f"{case_id}-he",
            reader="openslide",
            format="tiled TIFF",
            mpp=0.5,
            mpp_from="file",
            size_px0=(2000, 1800),
            origin_px0=(0, 0),
            downsamples=(1.0,),
            tissue_mm2=0.8,
            content_sha256="0",
        )
        checked = CheckedCase(
            case_id=case_id,
            patient_id=f"P{number}",
            marker="HER2",
            her2_score=score,
            section="restained",
            he=slide,
            ihc=slide.model_copy(update={"slide_id": f"{case_id}-ihc"}),
            provenance=Provenance(artefact="checked", subject=case_id),
        )
        write_checked(folder / "checked" / f"{case_id}.json", checked)
        pictures = folder / "pictures" / case_id
        pictures.mkdir(parents=True)
        for name in ("he", "ihc", "before", "after", "tissue"):
            Image.fromarray(stained(self.rng, 0.4, side=120)).save(pictures / f"{name}.jpg")
        return [
            {
                **row,
                "store": f"tiles/{case_id}.zarr",
                "split": "test",
                "alignment": "aligned",
                "he_reader": None,
                "ihc_reader": None,
                "fold": None,
            }
            for row in rows[1:]
        ]

    def _row(self, case_id, score, number, at):
        return {
            "tile_id": f"{case_id}/{at}",
            "case_id": case_id,
            "patient_id": f"P{number}",
            "row_in_store": at,
            "x_px0": at * SIDE,
            "y_px0": 0,
            "canvas_x_px0": 0,
            "canvas_y_px0": 0,
            "mpp": 0.5,
            "her2_score": score,
            "marker": "HER2",
            "section": "restained",
            "source_split": None,
            "tissue_frac": 0.9,
            "region": "",
            "place": "inside",
            "slide_id": None,
            "batch": None,
            "score_level": "slide",
            "source_set": "",
            "source_name": "",
            "warped_stain": "ihc",
            "he_phash": None,
            "ihc_phash": None,
            "problem": "",
            "he_sha256": "a",
            "ihc_sha256": "b",
            "measurements": {"blur_he": 0.4},
        }

    def run(self, name, dataset, *, noise=20.0, model="identity", split="test", select="last"):
        """A run that draws the real tile with noise."""
        folder = self.folder / "runs" / name
        training = TrainingSpec.model_validate({"n_steps": 40, "select": {"metric": select}})
        record = ResolvedRun(
            name=name,
            model=model,
            preset="tiny",
            dataset=dataset,
            seed=0,
            config={},
            parts={},
            training=training,
            pairing="paired",
            needs=(),
            provenance=Provenance(artefact="run", subject=name),
        )
        write_resolved(folder / "config.json", record)
        history = [
            {"step": step, "phase": "train", "name": term, "value": float(np.exp(-step / 20) * scale)}
            for step in range(0, 40, 2)
            for term, scale in (("generator", 3.0), ("discriminator", 0.7))
        ]
        write_table(history, folder / "history.parquet", HISTORY, Provenance(artefact="history", subject=name))
        index = self.folder / dataset / "index.parquet"
        self.spec["runs"][name] = {"dataset": dataset, "on": {dataset: split}}
        on = folder / "on" / dataset / split
        self._predict(index, on / "virtual.zarr", name, noise)
        pairs = PairedTiles(index, "test", on / "virtual.zarr")
        rows = score_run(pairs, run=name, dataset=dataset, split=split, spec=EvaluationSpec(), networks=MISSING)
        write_table(rows, on / "scores.parquet", SCORES, Provenance(artefact="scores", subject=name))
        return self

    def _predict(self, index, path, name, noise):
        from hepipe.dataset.tiles import SplitTiles

        tiles = SplitTiles(index, "test")
        made = Provenance(artefact="virtual", subject=name)
        more = {"tile_ids": [row.tile_id for row in tiles.rows]}
        with TileWriter(path, made, mpp=0.5, tile_px=SIDE, arrays={"virtual": 3}, attributes=more) as writer:
            for place in range(len(tiles)):
                drawn = tiles.rgb("ihc", place) + self.rng.normal(0, noise, (SIDE, SIDE, 3))
                writer.add(virtual=np.clip(drawn, 0, 255).astype(np.uint8))
            writer.finish()


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


@pytest.fixture
def cohort():
    return [
        ("C1", "0", OK),
        ("C2", "2+", CaseStatus(state="review", stage="registration", reason="similarity 0.2")),
        ("C3", "3+", OK),
    ]
