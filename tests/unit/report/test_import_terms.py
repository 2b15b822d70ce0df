import json

from hepipe.dataset.card import read_card, write_card
from hepipe.dataset.terms import Terms
from hepipe.report.page import write_report
from hepipe.report.spec import ReportSpec


def test_terms_and_division_of_an_imported_set_are_on_the_page_escaped(results, cohort, tmp_path):
    made = results.dataset("bci", cohort)
    path = results.folder / "bci" / "dataset.json"
    terms = Terms(source_set="bci", line="no <b>commercial</b> use")
    card = read_card(path).model_copy(update={"terms": (terms,), "imported": {"division": "as published"}})
    write_card(path, card)
    spec = ReportSpec.model_validate_json(json.dumps(made.spec))
    page = tmp_path / "report.html"
    write_report(results.folder, spec, page=page, status=tmp_path / "s.tsv", tables=tmp_path / "tables")
    text = page.read_text(encoding="utf-8")
    assert "Terms of bci: no &lt;b&gt;commercial&lt;/b&gt; use." in text
    assert "as published" in text
