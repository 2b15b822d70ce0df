import pytest
import typer
import yaml
from typer.testing import CliRunner

from hepipe.cli import stains as stains_commands
from hepipe.config import load_config
from hepipe.dataset.stain_pool import as_yaml, pool
from hepipe.errors import ConfigError
from hepipe.stains.matrices import DAB, HAEMATOXYLIN, angle_deg
from hepipe.stores.cases import CaseStains, SlideStains, write_stains
from hepipe.stores.provenance import Provenance


def record(case_id, batch, *, dab=DAB, white=(240.0, 241.0, 242.0), **options):
    ihc = SlideStains(first=HAEMATOXYLIN, second=dab, white=white, **{"method": "macenko", "n_pixels": 9000, **options})
    return CaseStains(
        case_id=case_id, batch=batch, he=ihc, ihc=ihc, provenance=Provenance(artefact="stains", subject=case_id)
    )


RECORDS = [
    record("c1", "b 1", dab=(0.30, 0.55, 0.78)),
    record("c2", "b 1", dab=(0.30, 0.55, 0.78)),
    record("c3", "b 1", dab=(0.10, 0.60, 0.79)),
    record("c4", "b 1", dab=(0.9, 0.3, 0.3), method="batch", white=(100.0, 100.0, 100.0), white_from="batch"),
    record("c5", "b2", method="fixed"),
    record("c6", None),
]


def test_each_batch_has_the_median_of_its_slides_own_vectors():
    unknown, first, second = pool(list(reversed(RECORDS)))
    assert (unknown.batch, first.batch, second.batch) == (None, "b 1", "b2")
    assert angle_deg(first.stains.second, (0.30, 0.55, 0.78)) < 1
    assert first.stains.n_vectors == 3
    assert first.stains.white == (240.0, 241.0, 242.0)
    assert (first.cases, first.without) == (("c1", "c2", "c3"), ("c4",))
    assert (second.stains, second.without) == (None, ("c5",))


def test_the_proposal_is_a_section_of_the_config():
    text = as_yaml(pool(RECORDS))
    config = load_config({**yaml.safe_load(text), "datasets": {"a": {"sheet": "x.tsv"}}})
    batches = config.datasets["a"].sections.stains.batches
    assert list(batches) == ["b 1"]
    assert batches["b 1"].white == (240.0, 241.0, 242.0)
    assert '# batch "b2": none of its slides' in text
    assert "fill the column `batch`" in text


def test_without_a_proposal_the_text_still_reads_as_config():
    text = as_yaml(pool([record("c5", "b2", method="fixed")]))
    assert yaml.safe_load(text) == {"stains": {"batches": {}}}


def test_the_command_reads_what_is_done_and_says_when_nothing_is(tmp_path):
    app = typer.Typer()
    stains_commands.register(app)
    with pytest.raises(ConfigError, match="no case has stains"):
        CliRunner().invoke(app, ["stains", "pool", str(tmp_path)], catch_exceptions=False)
    for one in RECORDS:
        write_stains(tmp_path / "stains" / f"{one.case_id}.json", one)
    said = CliRunner().invoke(app, ["stains", "pool", str(tmp_path)], catch_exceptions=False)
    assert said.output == as_yaml(pool(RECORDS))


def test_a_batch_of_one_slide_says_that_more_are_better():
    assert "3 or more are better" in as_yaml(pool([record("c1", "b")]))
