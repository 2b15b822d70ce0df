import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from onnx_writer import convolution
from typer.testing import CliRunner

from hepipe.cli import imports, stains, tiles
from hepipe.dataset.card import read_card
from hepipe.dataset.tiles import SplitTiles
from hepipe.errors import StoreError
from hepipe.geometry import identity
from hepipe.quality.funnel import read_funnel
from hepipe.quality.verdict import grade
from hepipe.slides.pyramid import PyramidSlide
from hepipe.specs.learned import LearnedSpec
from hepipe.specs.quality import LimitsSpec, QualitySpec
from hepipe.specs.stains import StainsSpec
from hepipe.specs.tiling import TilingSpec
from hepipe.stains.atst_mask import atst_mask
from hepipe.status import failed, review
from hepipe.stores.arrays import write_registered, write_tissue
from hepipe.stores.cases import CheckedCase, SlideFacts, read_checked, read_stains, write_checked
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, TILES, VERDICTS, read_provenance, read_table, write_table
from hepipe.stores.tiles import TileStore
from hepipe.tissue.regions import REGIONS

app = typer.Typer()
stains.register(app)
tiles.register(app)
imports.register(app)

MPP = 2.0
TILING = TilingSpec(mpp=MPP, tile_px=32).model_dump_json()
OPEN = QualitySpec(limits=LimitsSpec(restained={}, consecutive={})).model_dump_json()


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def paint(path: Path, vectors: list[tuple[float, float, float]], seed: int) -> None:
    """A slide of 160 px: 20 px of glass around spots of two stains."""
    rng = np.random.default_rng(seed)
    amounts = np.zeros((160, 160, 2))
    amounts[20:140, 20:140] = rng.gamma(1.5, 0.25, (120, 120, 2)) * (rng.random((120, 120, 2)) < 0.5)
    unit = np.array([np.array(v) / np.linalg.norm(v) for v in vectors])
    rgb = 245 * 10 ** -(amounts @ unit)
    cv2.imwrite(str(path), np.clip(np.rint(rgb), 0, 255).astype(np.uint8)[..., ::-1])


class Folder:
    """Artefacts of the stages before ours, and the paths of ours."""

    def __init__(self, root: Path) -> None:
        self.root = root / "set"
        self.case("c1", "3+")

    def case(
        self, case_id: str, score: str, *, status: object = None, seed: int = 1, regions: np.ndarray | None = None
    ) -> None:
        root = self.root
        (root / "slides").mkdir(parents=True, exist_ok=True)
        facts = {}
        for stain, vectors in (
            ("he", [(0.65, 0.7, 0.29), (0.2, 0.8, 0.55)]),
            ("ihc", [(0.65, 0.7, 0.29), (0.27, 0.57, 0.78)]),
        ):
            paint(root / "slides" / f"{case_id}-{stain}.png", vectors, seed)
            facts[stain] = SlideFacts(
                slide_id=f"{case_id}-{stain}", reader="picture", format="picture", mpp=MPP, mpp_from="sheet",
                not_direct="a picture" if stain == "ihc" else "",
                size_px0=(160, 160), origin_px0=(0, 0), downsamples=(1.0,), tissue_mm2=0.05,
                content_sha256=f"{seed}{stain}",
            )  # fmt: skip

        def made(artefact: str) -> Provenance:
            return Provenance(artefact=artefact, subject=case_id, **({} if status is None else {"status": status}))

        write_checked(
            root / "checked" / f"{case_id}.json",
            CheckedCase(
                case_id=case_id, patient_id=f"p-{case_id}", marker="HER2", her2_score=score, section="restained",
                he=facts["he"], ihc=facts["ihc"], provenance=made("checked"),
            ),
        )  # fmt: skip
        known = None if status is not None else identity(fixed_mpp=MPP, moving_mpp=MPP)
        write_registered(
            root / "registered" / f"{case_id}.zarr",
            made("registered"),
            ihc_from_he=known,
            he_from_ihc=known,
            summary={},
        )
        mask = np.zeros((40, 40), bool)
        mask[5:35, 5:35] = True
        masks = {} if status is not None else {"tissue": mask}
        masks |= {} if regions is None else {"regions": regions}
        write_tissue(root / "tissue" / f"{case_id}.zarr", made("tissue"), masks=masks, mpp=8.0, summary={})

    def inputs(self, case_id: str) -> list[object]:
        root = self.root
        slides = [part for s in ("he", "ihc") for part in (f"--{s}", root / "slides" / f"{case_id}-{s}.png")]
        return [
            *slides, "--checked", root / "checked" / f"{case_id}.json", "--transform",
            root / "registered" / f"{case_id}.zarr", "--tissue", root / "tissue" / f"{case_id}.zarr",
        ]  # fmt: skip

    def chain(self, case_id: str, *, workers: int = 1, quality: str = OPEN, learned: str = "") -> str:
        root = self.root
        stains = root / "stains" / f"{case_id}.json"
        index = root / "tiles" / f"{case_id}.parquet"
        said = run("stains", "estimate", *self.inputs(case_id), "--stains", stains)
        said += run(
            "tile", *self.inputs(case_id), "--stains", stains, "--tiles", root / "tiles" / f"{case_id}.zarr",
            "--index", index, "--spec", TILING, "--workers", workers, "--learned", learned,
        )  # fmt: skip
        verdict = root / "verdict" / f"{case_id}.parquet"
        return said + run("grade", "--index", index, "--verdict", verdict, "--spec", quality)

    def assemble(self, *cases: str) -> str:
        return run(
            "assemble", "--folder", self.root, "--cases", ",".join(cases), "--index", self.root / "index.parquet",
            "--card", self.root / "dataset.json", "--funnel", self.root / "funnel.json",
        )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_a_case_becomes_tiles_verdicts_and_an_index(folder):
    folder.chain("c1")
    rows = read_table(folder.root / "tiles" / "c1.parquet", TILES)
    store = TileStore(folder.root / "tiles" / "c1.zarr")
    assert len(rows) == len(store) == 9
    assert store.read_mask("dab_mask", 4).any()
    assert [row["row_in_store"] for row in rows] == list(range(9))
    assert all(row["tissue_frac"] >= 0.6 for row in rows)
    folder.assemble("c1")
    index = read_table(folder.root / "index.parquet", INDEX)
    assert [row["tile_id"] for row in index] == sorted(row["tile_id"] for row in rows)
    assert (folder.root / index[0]["store"]).is_dir()
    # Who decoded the pixels, and why not directly.
    assert {(row["he_reader"], row["ihc_reader"]) for row in index} == {("picture", "picture: a picture")}
    card = read_card(folder.root / "dataset.json")
    assert (card.n_tiles, card.n_kept, card.cases[0].n_kept) == (9, 9, 9)


def test_a_stopped_case_is_begun_anew_when_its_outlines_have_changed(folder, monkeypatch):
    def stopped(*_, **__):
        raise RuntimeError("stopped")

    begun = folder.root / "tiles" / ".c1.zarr.partial" / "key"
    keys = []
    for regions in (None, None, np.full((40, 40), 1, np.uint8)):
        folder.case("c1", "3+", regions=regions)
        with monkeypatch.context() as patched:
            patched.setattr("hepipe.tiling.cut.watched", stopped)
            with pytest.raises(RuntimeError, match="stopped"):
                folder.chain("c1")
        keys.append(begun.read_text())
    assert keys[0] == keys[1] != keys[2]


def test_tiles_beside_the_tumour_come_with_their_place_and_are_never_trained_on(folder, monkeypatch):
    regions = np.zeros((40, 40), np.uint8)
    regions[:16] = REGIONS.index("invasive") + 1  # the upper two of five rows of tiles
    folder.case("c1", "3+", regions=regions)
    monkeypatch.setitem(globals(), "TILING", TilingSpec(mpp=MPP, tile_px=32, outside_frac=1.0).model_dump_json())
    folder.chain("c1")
    table = folder.root / "tiles" / "c1.parquet"
    rows = read_table(table, TILES)
    assert {(row["y_px0"], row["region"], row["place"]) for row in rows} == {
        (32, "invasive", "inside"),
        (64, "", "outside"),
        (96, "", "outside"),
    }
    told = read_provenance(table).told
    assert (told["n_inside"], told["n_beside"], told["n_outside"], told["canvas_px0"]) == (3, 6, 6, [0, 0])
    assert TileStore(folder.root / "tiles" / "c1.zarr").provenance.told == told
    said = folder.assemble("c1")
    assert "3 tiles and 6 from beside the tumour of 1 patients" in said
    card = read_card(folder.root / "dataset.json")
    assert (card.n_tiles, card.n_kept, card.n_outside) == (9, 3, 6)
    split = card.cases[0].split
    index = folder.root / "index.parquet"
    assert len(SplitTiles(index, split)) == 3
    assert len(SplitTiles(index, split, place="outside")) == 6


def test_a_case_without_tissue_in_its_regions_fails_with_the_reason(folder):
    regions = np.zeros((40, 40), np.uint8)
    regions[:8, :8] = REGIONS.index("tumour") + 1
    folder.case("c1", "3+", regions=regions)
    assert "no tile has 60% tissue within the regions to use, the most is 14%" in folder.chain("c1")


@pytest.mark.parametrize("kernel", ["area", "area_level0"])
def test_the_kernel_says_what_level_tiles_are_made_of(folder, monkeypatch, kernel):
    seen = set()
    read = PyramidSlide.read
    monkeypatch.setattr(PyramidSlide, "read", lambda self, *a, **k: seen.add(self.from_level0) or read(self, *a, **k))
    monkeypatch.setitem(globals(), "TILING", TilingSpec(mpp=MPP, tile_px=32, kernel=kernel).model_dump_json())
    folder.chain("c1")
    assert (True in seen) == (kernel == "area_level0")
    assert read_provenance(folder.root / "tiles" / "c1.parquet").spec["kernel"] == kernel


def test_stored_tiles_are_the_slides_pixels(folder):
    folder.chain("c1")
    row = read_table(folder.root / "tiles" / "c1.parquet", TILES)[0]
    slide = cv2.imread(str(folder.root / "slides" / "c1-ihc.png"))[..., ::-1]
    x, y = row["x_px0"], row["y_px0"]
    store = TileStore(folder.root / "tiles" / "c1.zarr")
    np.testing.assert_array_equal(store.read("ihc", 0), slide[y : y + 32, x : x + 32])


def test_the_number_of_workers_changes_nothing(folder):
    folder.chain("c1")
    rows = read_table(folder.root / "tiles" / "c1.parquet", TILES)
    folder.assemble("c1")
    first = read_card(folder.root / "dataset.json").fingerprint
    folder.chain("c1", workers=4)
    assert read_table(folder.root / "tiles" / "c1.parquet", TILES) == rows
    folder.assemble("c1")
    assert read_card(folder.root / "dataset.json").fingerprint == first


def test_a_failed_case_passes_its_status_on_and_the_rest_completes(folder):
    folder.case("c2", "0", status=failed("registration", "no overlap"), seed=2)
    for stain in ("he", "ihc"):
        (folder.root / "slides" / f"c2-{stain}.png").unlink()
    folder.chain("c1")
    folder.chain("c2")
    assert read_stains(folder.root / "stains" / "c2.json").he is None
    assert TileStore(folder.root / "tiles" / "c2.zarr").names() == []
    assert read_table(folder.root / "verdict" / "c2.parquet", VERDICTS) == []
    assert read_provenance(folder.root / "verdict" / "c2.parquet").status == failed("registration", "no overlap")
    folder.assemble("c1", "c2")
    card = read_card(folder.root / "dataset.json")
    assert {case.case_id: case.status.state for case in card.cases} == {"c1": "ok", "c2": "failed"}
    assert card.cases[1].split is None


def test_too_fine_a_resolution_fails_the_case_not_the_run(folder):
    root = folder.root
    run("stains", "estimate", *folder.inputs("c1"), "--stains", root / "stains" / "c1.json")
    run(
        "tile", *folder.inputs("c1"), "--stains", root / "stains" / "c1.json", "--tiles", root / "t.zarr",
        "--index", root / "t.parquet", "--spec", '{"mpp": 0.5}',
    )  # fmt: skip
    status = read_provenance(root / "t.parquet").status
    assert (status.state, status.stage) == ("failed", "tiling")
    assert "level 0" in status.reason


def test_tiles_need_a_physical_pixel_size(folder):
    path = folder.root / "checked" / "c1.json"
    case = read_checked(path)
    write_checked(path, case.model_copy(update={"ihc": case.ihc.model_copy(update={"mpp_from": "unknown"})}))
    folder.chain("c1")
    status = read_provenance(folder.root / "tiles" / "c1.parquet").status
    assert (status.state, status.stage) == ("failed", "tiling")
    assert "fill mpp_he and mpp_ihc" in status.reason


def test_a_case_without_a_tile_says_how_much_tissue_there_was(folder):
    root = folder.root
    run("stains", "estimate", *folder.inputs("c1"), "--stains", root / "stains" / "c1.json")
    said = run(
        "tile", *folder.inputs("c1"), "--stains", root / "stains" / "c1.json", "--tiles", root / "t.zarr",
        "--index", root / "t.parquet", "--spec", '{"mpp": 2, "tile_px": 160}',
    )  # fmt: skip
    assert "no tile has 60% tissue, the most is 56%" in said


def test_artefacts_name_no_file(folder):
    folder.chain("c1")
    folder.assemble("c1")
    texts = [(folder.root / "stains" / "c1.json").read_text(), (folder.root / "dataset.json").read_text()]
    texts += [read_provenance(folder.root / "tiles" / "c1.parquet").model_dump_json()]
    assert not any("c1-he.png" in text or str(folder.root) in text for text in texts)


def test_the_stains_record_holds_what_it_was_made_with(folder):
    folder.chain("c1")
    record = read_stains(folder.root / "stains" / "c1.json")
    assert record.provenance.spec == json.loads(StainsSpec().model_dump_json())
    assert record.ihc is not None
    assert record.ihc.dab_frac > 0.1
    assert record.he.white == pytest.approx((245, 245, 245), abs=1)


def test_cut_and_imported_tiles_carry_every_measurement_that_the_default_limits_name(folder, tmp_path):
    folder.chain("c1")
    for stain in ("HE", "IHC"):
        (tmp_path / "theirs" / stain).mkdir(parents=True)
    vectors = {"HE": [(0.65, 0.7, 0.29), (0.2, 0.8, 0.55)], "IHC": [(0.65, 0.7, 0.29), (0.27, 0.57, 0.78)]}
    for stain, pair in vectors.items():
        paint(tmp_path / "theirs" / stain / "one.png", pair, seed=4)
    run("import", "folder", tmp_path / "theirs", "--out", tmp_path / "results/theirs", "--mpp", MPP)
    imported = tmp_path / "results/theirs/tiles/imported.parquet"
    for table in (folder.root / "tiles" / "c1.parquet", imported):
        row = read_table(table, TILES)[0]
        limited = getattr(QualitySpec().limits, row["section"]).keys()
        assert limited <= row["measurements"].keys(), limited - row["measurements"].keys()


def test_a_pair_in_review_is_cut_and_graded_and_enters_the_index_when_the_sheet_accepts_it(folder):
    folder.chain("c1")
    folder.case("c2", "0", seed=2)
    still = identity(fixed_mpp=MPP, moving_mpp=MPP)
    doubt = Provenance(artefact="registered", subject="c2", status=review("registration", "look at the overlay"))
    write_registered(folder.root / "registered/c2.zarr", doubt, ihc_from_he=still, he_from_ihc=still, summary={})
    folder.chain("c2")
    assert len(read_table(folder.root / "tiles/c2.parquet", TILES)) == 9
    said = folder.assemble("c1", "c2")
    assert "case c2 is in review: 9 tiles held back" in " ".join(said.split())
    assert {row["case_id"] for row in read_table(folder.root / "index.parquet", INDEX)} == {"c1"}
    checked = folder.root / "checked/c2.json"
    write_checked(checked, read_checked(checked).model_copy(update={"accepted": "yes"}))
    folder.assemble("c1", "c2")
    assert {row["case_id"] for row in read_table(folder.root / "index.parquet", INDEX)} == {"c1", "c2"}


def test_a_review_of_the_registration_counts_under_an_earlier_doubt_about_the_slides(folder):
    folder.case("c2", "0", seed=2)
    still = identity(fixed_mpp=MPP, moving_mpp=MPP)
    doubt = Provenance(artefact="registered", subject="c2", status=review("slides", "two scores"))
    for summary, held in (({"verdict": "review"}, 9), ({"verdict": "ok"}, 0)):
        write_registered(
            folder.root / "registered/c2.zarr", doubt, ihc_from_he=still, he_from_ihc=still, summary=summary
        )
        folder.chain("c2")
        folder.assemble("c2")
        assert read_card(folder.root / "dataset.json").cases[0].n_held == held


def split_network(root: Path) -> LearnedSpec:
    """A network that calls a px ink where it is darker than 100 of 255 in red."""
    weights, bias = np.zeros((2, 3, 1, 1), np.float32), np.array([0.0, 100 / 255], np.float32)
    weights[0, 0], weights[1, 0] = 0.5, -0.5
    content = convolution(weights, bias)
    (root / "ink.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return LearnedSpec(
        file="ink.onnx", sha256=sha256, mpp=MPP, classes=("tissue", "ink"), drop={"ink": 0.1}, stains=("he",)
    )


def test_a_network_of_the_users_measures_tiles_and_the_funnel_says_what_its_limit_drops(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("HEPIPE_WEIGHTS", str(tmp_path))
    network = split_network(tmp_path)
    tables = {}
    for name, learned in (("without", ""), ("with", network.model_dump_json(exclude={"drop"}))):
        folder.chain("c1", learned=learned)
        tables[name] = read_table(folder.root / "tiles/c1.parquet", TILES)
        made = read_provenance(folder.root / "tiles/c1.parquet")
        assert made.inputs.get("learned") == (network.sha256 if learned else None)
    ink = [row["measurements"]["learned_ink_he"] for row in tables["with"]]
    reds = [tile[..., 0] for tile in map(TileStore(folder.root / "tiles/c1.zarr").read, ["he"] * 9, range(9))]
    assert ink == [pytest.approx((red < 100).mean(), abs=0.002) for red in reds]
    assert min(ink) < max(ink)
    # All else is as it was: the network stands beside the other measurements.
    for plain, row in zip(tables["without"], tables["with"], strict=True):
        assert row["he_sha256"] == plain["he_sha256"]
        assert plain["measurements"].items() <= row["measurements"].items()
    limit = round(float(np.median(ink)), 4)
    strict = json.loads(OPEN) | {"learned": json.loads(network.model_dump_json()) | {"drop": {"ink": limit}}}
    folder.chain("c1", learned=network.model_dump_json(exclude={"drop"}), quality=json.dumps(strict))
    folder.assemble("c1")
    funnel = read_funnel(folder.root / "funnel.json")
    (case,) = funnel.cases
    steps = {step.name: step for step in case.steps}
    assert steps["learned_ink_he"].dropped == sum(share > limit for share in ink) > 0
    # What stands in the funnel says the same of the same table again.
    again = grade(
        read_table(folder.root / "tiles/c1.parquet", TILES), QualitySpec.model_validate(funnel.provenance.spec)
    )
    assert again == read_table(folder.root / "verdict/c1.parquet", VERDICTS)
    told = read_provenance(folder.root / "tiles/c1.parquet").told
    assert (steps["cells"].left, steps["glass"].left) == (told["n_cells"], told["n_tissue"])
    assert (
        steps["kept"].left
        == len(read_table(folder.root / "index.parquet", INDEX))
        == 9 - steps["learned_ink_he"].dropped
    )


def test_the_card_warns_of_a_filter_that_drops_one_score_more_than_the_others(folder):
    folder.case("c2", "0", seed=2)
    for case_id in ("c1", "c2"):
        folder.chain(case_id)
    path = folder.root / "verdict/c1.parquet"
    made = read_provenance(path)
    blurred = [
        {**row, "keep": False, "reason": "blur_ihc", "flags": ["blur_ihc"]} if at < 8 else row
        for at, row in enumerate(read_table(path, VERDICTS))
    ]
    limits = {"restained": {"blur_ihc": {"max": 0.7}}, "consecutive": {}}
    write_table(blurred, path, VERDICTS, made.model_copy(update={"spec": {**made.spec, "limits": limits}}))
    said = " ".join(folder.assemble("c1", "c2").split())
    told = "filter blur_ihc drops 89% of the 3+ tiles and 0% of the others (restained pairs), in 1 of its 1 cases"
    assert f"warning: {told}" in said
    assert any(warning.startswith(told) for warning in read_card(folder.root / "dataset.json").warnings)
    funnel = read_funnel(folder.root / "funnel.json")
    assert [case.alarms for case in funnel.cases] == [("blur_ihc",), ()]
    assert funnel.provenance.inputs == {"fingerprint": read_card(folder.root / "dataset.json").fingerprint}


def test_a_case_without_dab_takes_the_vectors_of_its_batch_and_says_so(folder):
    checked, record = folder.root / "checked/c1.json", folder.root / "stains/c1.json"
    paint(folder.root / "slides/c1-ihc.png", [(0.65, 0.7, 0.29), (0.66, 0.69, 0.29)], seed=1)
    write_checked(checked, read_checked(checked).model_copy(update={"batch": "b1"}))
    given = {"b1": {"haematoxylin": (0.6, 0.7, 0.3), "dab": (0.3, 0.55, 0.78)}}
    said = run("stains", "estimate", *folder.inputs("c1"), "--stains", record, "--spec", json.dumps({"batches": given}))
    found = read_stains(record)
    assert (found.batch, found.ihc.method, found.he.method) == ("b1", "batch", "macenko")
    assert "vectors of its batch in place of macenko" in " ".join(said.split())
    assert "b1" in run("stains", "pool", folder.root)


def test_imported_tiles_take_the_mask_recipe_of_the_config(tmp_path):
    for stain in ("HE", "IHC"):
        (tmp_path / "theirs" / stain).mkdir(parents=True)
        paint(tmp_path / "theirs" / stain / "one.png", [(0.65, 0.7, 0.29), (0.27, 0.57, 0.78)], seed=4)
    recipe = json.dumps({"dab_method": "atst"})
    out = tmp_path / "results/theirs"
    run("import", "folder", tmp_path / "theirs", "--out", out, "--mpp", 0.4661, "--stains-spec", recipe)
    store = TileStore(out / "tiles/imported.zarr")
    np.testing.assert_array_equal(store.read_mask("dab_mask", 0), atst_mask(store.read("ihc", 0), close_px=30).mask)


def test_verdicts_by_limits_of_another_version_are_asked_for_again(folder):
    folder.chain("c1")
    path = folder.root / "verdict/c1.parquet"
    made = read_provenance(path)
    old = made.model_copy(update={"spec": {"revision": 2, "limits": {"blur_he": {"max": 1}}}})
    write_table(read_table(path, VERDICTS), path, VERDICTS, old)
    with pytest.raises(StoreError, match="graded by limits of another version; run grade_tiles again"):
        folder.assemble("c1")
