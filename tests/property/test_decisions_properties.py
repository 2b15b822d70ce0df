"""Whatever is decided about whatever tile comes back from its file."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hepipe.dataset.decisions import CONTENT_ID, TILE_ID, WORDS, Decision, read_decisions, write_decisions

# Cells are stripped when they are read, as a spreadsheet may pad them.
WORD = st.from_regex(WORDS, fullmatch=True).filter(lambda word: word == word.strip())
NAME = st.from_regex(TILE_ID, fullmatch=True).filter(
    lambda name: name == name.strip() and not any("\ud800" <= letter <= "\udfff" for letter in name)
)
DECISIONS = st.lists(
    st.builds(
        lambda key, tile, reason, reader, time: Decision(
            key, tile, "drop" if reason is not None else "keep", reason or "", reader, time
        ),
        st.from_regex(CONTENT_ID, fullmatch=True),
        NAME,
        st.none() | st.just("") | WORD,
        st.just("") | WORD,
        st.just("") | st.datetimes().map(lambda time: time.isoformat(timespec="seconds") + "Z"),
    ),
    unique_by=lambda one: one.content_id,
    max_size=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DECISIONS)
def test_decisions_come_back_from_their_file_as_they_were(tmp_path, decisions):
    write_decisions(tmp_path / "a.csv", decisions)
    found = read_decisions(tmp_path / "a.csv")
    assert list(found.decisions.values()) == decisions
    assert (found.repeated, found.contradicted) == (0, ())
