from hepipe.dataset.audit import KINDS, Leak, LeakAudit
from hepipe.dataset.card import DatasetCard
from hepipe.dataset.splits import SplitProof
from hepipe.dataset.strata import Stratum
from hepipe.report.splits_section import splits_section
from hepipe.stores.provenance import Provenance


def proof(**changes):
    values = {
        "method": "every division", "divisions": 729, "missing": 0, "missing_bound": 0, "distance": 0.01,
        "distance_bound": 0.01, "wanted": {"train": 0.6, "test": 0.4}, "shares": {"train": 0.61, "test": 0.39},
        "dab": {"train": 0.1, "test": None}, "dab_mean": 0.1, "dab_gap": 0.0, **changes,
    }  # fmt: skip
    return SplitProof(**values)


def audited(*leaks, official=False):
    counts = {kind: sum(leak.kind == kind for leak in leaks) for kind in KINDS}
    return LeakAudit(n_tiles=9, n_hashed=9, near_bits=6, official=official, counts=counts, leaks=leaks)


def card(**changes):
    values = {
        "name": "set", "fingerprint": "f", "n_tiles": 9, "n_kept": 9, "cases": (), "splits": {}, "warnings": (),
        "strata": (Stratum(score="3+", group="train", tiles=1200, slides=3, patients=2),),
        "proof": proof(), "leaks": audited(), "provenance": Provenance(artefact="dataset", subject="set"), **changes,
    }  # fmt: skip
    return DatasetCard.model_construct(**values)


def test_strata_and_the_proof_stand_in_the_report():
    text = str(splits_section(card(batches=(Stratum(score="3+", group="<b>1", tiles=5, slides=1, patients=1),))))
    assert "1,200 | 3 | 2" in text
    assert "&lt;b&gt;1" in text
    assert "nothing betters it" in text
    assert "729 divisions looked at, every one there is" in text
    assert "no patient, slide, pixels, field or near-duplicate in two splits" in text
    assert "note red" not in text


def test_a_leak_of_an_official_split_is_red():
    leak = Leak(kind="patient", what="p<1", splits=("test", "train"))
    text = str(splits_section(card(leaks=audited(leak, official=True))))
    assert 'class="note red"' in text
    assert "1 by patient; the splits are those that the set came with" in text
    assert "patient p&lt;1 is in test and in train" in text


def test_a_division_that_was_not_shown_best_says_so():
    far = proof(method="search", distance=0.05, distance_bound=0.01)
    assert "shares may be bettered by 4.00% at most" in str(splits_section(card(proof=far)))
    less = proof(method="search", missing=2, missing_bound=1)
    assert "1 more (score, split) pairs may be possible" in str(splits_section(card(proof=less)))
    by_dab = proof(method="search", distance_bound=None)
    assert "best balance of DAB that the search met" in str(splits_section(card(proof=by_dab)))
    assert "2 (score, split) pairs have no patient: at least 1" in str(splits_section(card(proof=less)))
