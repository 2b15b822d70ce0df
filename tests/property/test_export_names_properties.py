import re

from hypothesis import given, settings
from hypothesis import strategies as st

from hepipe.exporters.names import MOST, checked_place, file_names

IDS = st.one_of(
    st.text(min_size=1, max_size=120),
    st.text(alphabet="aA1+-_./\\ \u00fc", min_size=1, max_size=12),
    st.from_regex(r"(train|val|all|c1)/[aAbB]{1,2}", fullmatch=True),
)
ROWS = st.lists(
    st.tuples(IDS, st.sampled_from(["train", "val"]), st.sampled_from(["", "bci"])),
    max_size=12,
    unique_by=lambda r: r[0],
)


@settings(deadline=None)
@given(ROWS)
def test_names_are_safe_and_lead_back_to_one_tile_each(rows):
    rows = [{"tile_id": tile_id, "split": split, "source_set": source} for tile_id, split, source in rows]
    names = file_names(rows)
    assert names.keys() == {row["tile_id"] for row in rows}
    places = {f"{row['split']}/{names[row['tile_id']]}.png".lower() for row in rows}
    assert len(places) == len(rows)
    for name in names.values():
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9+_-]*", name), name
        assert len(name) <= MOST
        assert checked_place(f"train/{name}.png")


@settings(deadline=None)
@given(ROWS)
def test_the_order_of_the_index_names_nothing(rows):
    rows = [{"tile_id": tile_id, "split": split, "source_set": source} for tile_id, split, source in rows]
    assert file_names(rows) == file_names(rows[::-1])
