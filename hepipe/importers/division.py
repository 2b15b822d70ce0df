"""How a set's tiles are divided anew, always the same for a seed: single tiles by score, or whole slides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence


def draw(names: Mapping[str, Sequence[str]], count: int, seed: int) -> set[str]:
    """Names drawn from strata in proportion to their sizes, by largest remainder.

    Args:
        names: Of each stratum.
        count: How many are drawn, at most as many as there are.
        seed: Of the order in which names are taken, that of SHA-256 over seed and name.
    """
    total = sum(len(own) for own in names.values())
    count = min(count, total)
    exact = {stratum: count * len(own) / max(total, 1) for stratum, own in names.items()}
    quota = {stratum: int(share) for stratum, share in exact.items()}
    order = sorted(names, key=lambda stratum: (quota[stratum] - exact[stratum], stratum))
    for stratum in order[: count - sum(quota.values())]:
        quota[stratum] += 1
    return {
        name for stratum, own in names.items() for name in sorted(own, key=lambda n: _order(seed, n))[: quota[stratum]]
    }


def whole_groups(sizes: Mapping[str, int], wanted: int, seed: int) -> set[str]:
    """Groups whose sizes add up to a number as near the wanted one as any subset's do; of two as near the smaller.

    Exact, by which sums the first n groups can give (subset sum); the seed's order decides between subsets of one
    sum. Neither nothing nor everything is taken where there is a choice.

    Args:
        sizes: Tiles of each group.
        wanted: How many tiles.
        seed: As of `draw`.
    """
    if len(sizes) < 2 or wanted <= 0:
        return set()
    order = sorted(sizes, key=lambda group: _order(seed, group))
    reachable = [1]
    for group in order:
        reachable.append(reachable[-1] | reachable[-1] << sizes[group])
    total = sum(sizes.values())
    sums = (number for number in range(1, total) if reachable[-1] >> number & 1)
    left = min(sums, key=lambda number: (abs(number - wanted), number))
    taken = set()
    for place in range(len(order) - 1, -1, -1):
        if not reachable[place] >> left & 1:
            taken.add(order[place])
            left -= sizes[order[place]]
    return taken


def _order(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
