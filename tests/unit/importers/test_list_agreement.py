import pytest

from hepipe.errors import ConfigError
from hepipe.importers.agreement import list_agreement

LISTED = ["00000_train_0.png", "train/00001_train_1+", "00002_train_2+", "00005_test_0"]


def tables(n: int = 6):
    levels = ("0", "1+", "2+", "3+", "0", "0")
    names = [f"{number:05d}_{'test' if number > 3 else 'train'}_{levels[number]}" for number in range(n)]
    tiles = [{"tile_id": f"{name[6:].partition('_')[0]}/{name}", "source_name": name, "problem": ""} for name in names]
    keep = (True, True, False, False, True, True)
    verdicts = [
        {"tile_id": tile["tile_id"], "keep": own, "reason": "" if own else "blur"}
        for tile, own in zip(tiles, keep, strict=True)
    ]
    return tiles, verdicts


def test_a_list_and_the_filters_are_counted_against_each_other_by_split():
    found = list_agreement(*tables(), LISTED)
    whole = found["all"]
    assert (whole.n, whole.both_keep, whole.list_only, whole.filters_only, whole.both_drop) == (6, 3, 1, 1, 1)
    # Observed 4/6; by chance (4/6)^2 + (2/6)^2 = 20/36.
    assert whole.kappa == pytest.approx((4 / 6 - 20 / 36) / (1 - 20 / 36))
    assert whole.reasons_list_only == {"blur": 1}
    assert (found["train"].n, found["test"].n) == (4, 2)
    assert (found["test"].both_keep, found["test"].filters_only) == (1, 1)


def test_tiles_that_cannot_be_used_are_not_counted():
    tiles, verdicts = tables()
    tiles[3]["problem"] = "no partner"
    assert list_agreement(tiles, verdicts, LISTED)["all"].n == 5


def test_a_name_that_the_import_lacks_is_an_error():
    with pytest.raises(ConfigError, match=r"--list: 1 names that no tile has: 00009_train_0 \(nearest: "):
        list_agreement(*tables(), ["00009_train_0"])
