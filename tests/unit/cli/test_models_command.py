import json

import pytest
import typer
from typer.testing import CliRunner

from hepipe.cli import doctor, models
from hepipe.errors import ConfigError
from hepipe.models.catalog import catalog
from hepipe.models.published import systems

app = typer.Typer()
models.register(app)
doctor.register(app)  # an app of one command would take no name of it


def hepipe(*options):
    return CliRunner().invoke(app, ["models", *options], catch_exceptions=False).output


def words(text):
    return " ".join(text.split())


def test_every_system_of_the_papers_and_every_model_of_the_zoo_has_a_row_of_a_hundred_columns():
    lines = hepipe().splitlines()
    assert max(map(len, lines)) <= 100
    first = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert set(first) >= systems().keys() | catalog().keys()


def test_what_is_in_the_zoo_and_what_cannot_be_is_told_apart():
    by_name = {row["name"]: row for row in json.loads(hepipe("--json"))}
    assert by_name["asp"]["status"] == "in the zoo"
    assert by_name["pst_diff"]["status"] in ("not reproducible", "in the zoo")
    assert by_name["cpp_net"]["status"] == "no model"
    assert by_name["pixel_map"]["published_numbers"] == 0
    assert "dab" not in by_name["cut"]["presets"]["paper"]["needs"]


def test_one_model_is_told_with_presets_size_and_numbers_of_each_paper():
    text = hepipe("pix2pix", "--preset", "tiny", "--side-px", "64")
    assert "source    Isola et al., CVPR 2017" in text
    assert "parameters" in text
    assert "GMAC a tile of 64 px" in text
    assert "Reported elsewhere" in text
    assert "quoted from Wang et al. 2025" in words(text)
    assert max(map(len, text.splitlines())) <= 100


def test_a_system_outside_the_zoo_has_its_reason_and_marks():
    text = hepipe("oda_gan")
    assert "not reproducible" in text
    assert "only fragments of its code are public" in words(text)
    doubtful = hepipe("asp_dgrank")
    assert "PSNR 14.052?;" in doubtful
    assert "? could not be read with certainty" in doubtful
    assert "PSNR: spread as printed; far too large" in words(doubtful)


def test_a_restored_number_is_marked_for_people_and_named_for_programs():
    assert "KID 4.5 ± 0.8° (factor unknown)" in words(hepipe("cssp2p", "--preset", "tiny"))
    found = json.loads(hepipe("cssp2p", "--preset", "tiny", "--json"))
    assert {number["mark"] for number in found["published"]} == {"clear", "restored"}
    assert {number["reported"] for number in found["published"]} == {"elsewhere"}
    assert found["size"]["preset"] == "tiny"


def test_a_tile_that_the_model_does_not_take_is_brought_down_to_one_it_takes():
    multiple = catalog()["cssp2p"].largest(250, "tiny")
    assert 0 < multiple < 250
    assert f"GMAC a tile of {multiple} px" in hepipe("cssp2p", "--preset", "tiny", "--side-px", "250")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["pix2pics"], "no model 'pix2pics'; there are pix2pix, "),
        (["cut", "--preset", "huge"], "--preset huge: cut has paper, fastcut, "),
        (["cssp2p", "--side-px", "3"], "--side-px 3: cssp2p paper takes multiples of 16 px"),
    ],
)
def test_what_is_not_there_is_named(options, text):
    with pytest.raises(ConfigError, match=text):
        hepipe(*options)
