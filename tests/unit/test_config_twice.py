import pytest

from hepipe.errors import ConfigError
from hepipe.specs.twice import refuse_twice


def check(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    refuse_twice(path)


def test_two_runs_of_one_name_are_told_with_both_lines(tmp_path):
    text = "runs:\n  cut: {model: cut}\n  asp: {model: asp}\n  cut:\n    model: cut\n    seed: 1\n    seed: 2\n"
    with pytest.raises(ConfigError) as caught:
        check(tmp_path, text)
    assert str(caught.value) == (
        "config:\n"
        "  runs.cut: stands in line 2 and again in line 4; keep one, or give them two names\n"
        "  runs.cut.seed: stands in line 6 and again in line 7; keep one, or give them two names"
    )


@pytest.mark.parametrize(
    "text",
    [
        "runs: {a: {seed: 1}, b: {seed: 1}}\n",
        "a: [{x: 1}, {x: 2}]\n",
        "base: &base {x: 1}\na: {<<: *base, y: 1}\nb: {<<: *base, <<: *base}\n",
        '{"a": {"x": 1}}',
        "a: &a {b: *a}\n",
        "",
        "runs: [",
    ],
    ids=["two runs", "a list", "merged", "json", "itself", "empty", "no yaml"],
)
def test_other_files_pass(tmp_path, text):
    check(tmp_path, text)


def test_keys_within_a_list_and_of_json_count_too(tmp_path):
    with pytest.raises(ConfigError, match=r"matrix\.model: stands in line 1 and again in line 1"):
        check(tmp_path, 'matrix: [{"model": ["cut"], "model": ["asp"]}]')
