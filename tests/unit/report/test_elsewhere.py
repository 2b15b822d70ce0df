import html
import json
import re

import pytest

from hepipe.models.published import numbers_of
from hepipe.report.page import write_report
from hepipe.report.spec import ReportSpec


@pytest.fixture
def section(results, cohort, tmp_path):
    """The section of a report whose runs have these models."""

    def write(**models):
        results.dataset("restained", cohort)
        for run, model in models.items():
            results.run(run, "restained", model=model)
        spec = ReportSpec.model_validate_json(json.dumps(results.spec))
        page = tmp_path / "report.html"
        write_report(results.folder, spec, page=page, status=tmp_path / "status.tsv", tables=tmp_path / "tables")
        text = page.read_text(encoding="utf-8")
        return re.search(r'<section id="published">.*?</section>', text, re.DOTALL)[0]

    return write


def rows_of(markup):
    return re.findall(r"<tr>.*?</tr>", markup, re.DOTALL)


def text_of(markup):
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", markup)).split())


def test_only_models_among_the_runs_are_shown(section):
    shown = text_of(section(mine="cssp2p"))
    assert "CSSP2P GAN" in shown
    assert "CycleGAN" not in shown
    assert "Reported elsewhere, on other data" in shown


def test_models_that_no_paper_prints_leave_a_remark(section):
    assert "print no numbers of the models" in text_of(section(mine="identity"))


def test_printed_numbers_are_grey_and_never_ranked_with_own_runs(section):
    markup = section(mine="cssp2p", other="cssp2p")
    own = [row for row in rows_of(markup) if "this report" in row]
    theirs = [row for row in rows_of(markup) if "table" in row]
    assert len(own) == 2
    assert not any("elsewhere" in row for row in own)
    for row in theirs:
        cells = re.findall(r'<td class="n">(.*?)</td>', row)
        assert all(cell.startswith('<div class="elsewhere">') for cell in cells if cell)
        assert not any(re.search(r"<(b|u)>", cell) for cell in cells)
    assert sum(len(re.findall(r'<td class="n"><div', row)) for row in theirs) == len(numbers_of("cssp2p"))


def test_an_own_number_of_another_flavour_says_which(section):
    rows = rows_of(section(mine="cssp2p"))
    own = next(row for row in rows if "this report" in row)
    head = re.findall(r"<th(?: [^>]*)?>(.*?)</th>", rows[0])
    cells = re.findall(r"<td[^>]*>(.*?)</td>", own)
    by_title = dict(zip([text_of(cell) for cell in head], cells, strict=True))
    assert "<small>SSIM</small>" in by_title["SSIM ↑"]
    assert "<small>" not in by_title["PSNR ↑"]


def test_doubt_and_repair_are_marked(section):
    markup = section(mine="cssp2p", theirs="pyramid_pix2pix")
    assert "4.5° ± 0.8 factor not said" in text_of(markup)
    assert "text reads &quot;45-08&quot;" in markup
    assert "put back; no digit was" in text_of(markup)


def test_no_chart_holds_a_printed_number(section):
    assert "<svg" not in section(mine="cssp2p")
