"""The card of a data set as a page and as Markdown."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hepipe.dataset.card import CardCase, DatasetCard, write_card
from hepipe.report.dataset_card import (
    Code,
    Rows,
    Text,
    _escaped,
    as_html,
    as_markdown,
    example_rows,
    write_dataset_card,
)
from hepipe.status import failed
from hepipe.stores.provenance import Provenance
from hepipe.stores.tables import INDEX, write_table
from hepipe.stores.tiles import TileWriter

SCORES = ("0", "1+", "2+", "3+")
HOSTILE = "<script>alert(1)</script> | [x](y) `z`"


def row(case_id, number, score, **columns):
    empty = dict.fromkeys(INDEX.names)
    return {
        **empty, "tile_id": f"{case_id}/{number}", "case_id": case_id, "patient_id": f"p-{case_id}",
        "row_in_store": number, "problem": "", "mpp": 0.5, "her2_score": score, "score_level": "slide",
        "marker": "HER2", "section": "restained", "source_set": "", "source_name": "", "warped_stain": "ihc",
        "tissue_frac": 1.0,
        "region": "", "place": "inside", "measurements": {"dab_frac": 0.25}, "store": f"tiles/{case_id}.zarr",
        "split": "train", "alignment": "aligned",
        **columns,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    rows = []
    for place, score in enumerate(SCORES):
        case_id = f"c{place}"
        arrays = {"he": 3, "ihc": 3, "dab_mask": 0}
        made = Provenance(artefact="tiles", subject=case_id)
        with TileWriter(tmp_path / f"tiles/{case_id}.zarr", made, mpp=0.5, tile_px=32, arrays=arrays) as writer:
            for number in range(3):
                he = np.full((32, 32, 3), 200, np.uint8)
                ihc = np.full((32, 32, 3), 230, np.uint8)
                mask = np.zeros((32, 32), bool)
                mask[8:24, 8:24] = True
                writer.add(he=he, ihc=ihc, dab_mask=mask)
                rows.append(row(case_id, number, score))
            writer.finish()
    write_table(rows, tmp_path / "index.parquet", INDEX, Provenance(artefact="dataset", subject="set"))
    lost = CardCase(
        case_id="lost", patient_id="p-lost", her2_score=None, split=None, n_tiles=0, n_kept=0,
        status=failed("slides", HOSTILE),
    )  # fmt: skip
    card = DatasetCard(
        name="set", fingerprint="f" * 64, n_tiles=14, n_kept=12, cases=(lost,), splits={}, warnings=(HOSTILE,),
        provenance=Provenance(artefact="dataset", subject="set"),
    )  # fmt: skip
    write_card(tmp_path / "dataset.json", card)
    return tmp_path


def test_a_card_has_eight_pairs_with_the_outline_of_their_masks(folder):
    written = write_dataset_card(folder, folder / "card")
    pictures = [name for name in written if name.endswith(".jpg")]
    assert len(pictures) == 8
    with Image.open(folder / "card" / pictures[0]) as picture:
        assert picture.size == (3 * 32 + 2 * 6, 32)
        shown = np.asarray(picture).astype(int)
    ihc, outlined = shown[:, 38:70], shown[:, 76:108]
    assert abs(outlined[2:5, 2:5] - 230).max() < 12
    assert (outlined - ihc)[6:12, 6:12, 2].min() < -100, "the edge of the mask is yellow, without blue"


def test_what_comes_from_data_is_text_on_the_page(folder):
    write_dataset_card(folder, folder / "card")
    page = (folder / "card/card.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg") == 8
    assert not re.search(r'(?:src|href)="(?!data:)', page), "the page stands alone"


def test_the_markdown_says_the_same_and_holds_no_markup_of_the_data(folder):
    write_dataset_card(folder, folder / "card")
    text = (folder / "card/README.md").read_text()
    assert "<script" not in text
    assert r"\[x\](y)" in text
    for name in re.findall(r"\]\(([^)]*jpg)\)", text):
        assert (folder / "card" / name).is_file()
    page = (folder / "card/card.html").read_text()
    for title in re.findall(r"^## (.*)$", text, re.MULTILINE):
        assert f"<h2>{title}</h2>" in page


def test_a_card_without_terms_says_that_this_is_no_permission(folder):
    write_dataset_card(folder, folder / "card")
    assert "That is no permission" in (folder / "card/README.md").read_text()


def test_a_card_names_failed_cases_with_their_reason(folder):
    write_dataset_card(folder, folder / "card")
    assert "slides: &lt;script&gt;" in (folder / "card/card.html").read_text()


def test_a_data_set_without_its_stores_has_a_card_without_pictures(folder, tmp_path):
    for case in range(4):
        (folder / f"tiles/c{case}.zarr").rename(folder / f"tiles/gone{case}.zarr")
    assert [name for name in write_dataset_card(folder, tmp_path / "out") if name.endswith("jpg")] == []
    assert "there are no pictures" in (tmp_path / "out/README.md").read_text()


def test_examples_take_scores_in_turn_and_cases_of_a_score_in_turn():
    rows = [row(f"{score}-{case}", n, score) for score in SCORES for case in range(3) for n in range(40)]
    rows += [row("rare-0", 0, None), row("beside-0", 0, "0", place="outside")]
    chosen = example_rows(rows, 10)
    counts = Counter(one["her2_score"] for one in chosen)
    assert counts == {"0": 2, "1+": 3, "2+": 2, "3+": 2, None: 1} or set(counts.values()) <= {1, 2, 3}
    assert counts[None] == 1
    assert len({one["case_id"] for one in chosen}) == 10
    assert example_rows(rows[::-1], 10) == chosen
    assert "beside-0" not in {one["case_id"] for one in chosen}


def test_a_row_that_breaks_a_table_or_a_fence_does_not():
    card = DatasetCard(
        name="a|b", fingerprint="f", n_tiles=0, n_kept=0, cases=(), splits={}, warnings=(),
        provenance=Provenance(artefact="dataset", subject="x"),
    )  # fmt: skip
    sections = [("T", [Rows(("a",), [["x\n| y"]]), Code("c", "```\n<b>"), Text("*a*")])]
    text = as_markdown(card, sections)
    assert r"| x \| y |" in text
    assert "````\n```\n<b>\n````" in text
    assert r"\*a\*" in text
    assert "&lt;b&gt;" in as_html(card, sections)
    assert _escaped("<i>") == "&lt;i&gt;"
