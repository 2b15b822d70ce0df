"""The pages share one palette, and each page's style has every colour that it names."""

import re

import pytest

from hepipe.report.parts import part, style

SHEETS = {"report": ("report.css",), "review": ("report.css", "review.css"), "landmarks": ("landmarks.css",)}
SET_BY_CLASS = {"--s"}


@pytest.mark.parametrize("page", SHEETS)
def test_a_page_s_style_names_no_colour_that_it_lacks(page):
    text = style(*SHEETS[page])
    named = set(re.findall(r"var\((--[\w-]+)", text))
    assert "--haematoxylin" in named
    in_root = "".join(re.findall(r":root \{(.*?)\}", text, re.DOTALL))
    assert named - SET_BY_CLASS <= set(re.findall(r"(--[\w-]+):", in_root))


def test_no_sheet_repeats_a_colour_of_the_palette():
    colours = re.findall(r"(--[\w-]+): (.+);", part("palette.css"))
    assert len(colours) == len(dict(colours)) > 10
    for sheet in {name for names in SHEETS.values() for name in names}:
        assert not set(re.findall(r"(--[\w-]+): ([^;]+);", part(sheet))) & set(colours), sheet
