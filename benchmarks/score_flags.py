"""How often a filter is put down to a HER2 score: on drawn cohorts where it drops all scores alike, and one more often.

    python benchmarks/score_flags.py --cohorts 100

Each cohort has 4 scores, some cases of each and 60 tiles a case. A case's own rate is drawn from a beta distribution
around that of its score; `spread` 0 is one rate for all cases, 0.3 is slides that lose nearly nothing or most. Prints,
for each number of cases, spread and rate of the 3+ tiles (10 % of all others are dropped): cohorts with a flag on any
score by the tiles alone, and by the tiles and cases together as the funnel does it.
"""

from __future__ import annotations

import argparse

import numpy as np

from hepipe.quality.funnel import Graded, score_shares
from hepipe.specs.quality import QualitySpec

SPEC = QualitySpec.model_validate({"limits": {"restained": {"blur_ihc": {"max": 1}}}, "alignment": {"drop": []}})
RATE = 0.1
N_TILES = 60


def drawn(rng: np.random.Generator, *, n_cases: int, spread: float, rate_3: float) -> list[Graded]:
    cases = []
    for score in ("0", "1+", "2+", "3+"):
        mean = rate_3 if score == "3+" else RATE
        for number in range(n_cases):
            own = rng.beta(mean * (1 - spread) / spread, (1 - mean) * (1 - spread) / spread) if spread else mean
            case_id = f"{score}-{number}"
            tiles = [
                {"tile_id": f"{case_id}/{n}", "case_id": case_id, "her2_score": score, "problem": ""}
                for n in range(N_TILES)
            ]
            verdicts = [{"flags": ["blur_ihc"] if rng.random() < own else []} for _ in tiles]
            cases.append(Graded(case_id, "restained", score, tiles, verdicts, {}, SPEC, frozenset(), {}))
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cohorts", type=int, default=100)
    n = parser.parse_args().cohorts
    print("cases a score  spread  rate of 3+  flagged by tiles alone  by tiles and cases")
    for n_cases in (2, 5, 10):
        for spread in (0.02, 0.1, 0.3):
            for rate_3 in (0.1, 0.3, 0.5):
                rng = np.random.default_rng(1)
                by_tiles = both = 0
                for _ in range(n):
                    shares = score_shares(drawn(rng, n_cases=n_cases, spread=spread, rate_3=rate_3))
                    by_tiles += any(share.verdict for share in shares)
                    both += any(share.verdict == "score" for share in shares)
                print(f"{n_cases:13} {spread:7.2f} {rate_3:11.1f} {by_tiles / n:23.0%} {both / n:19.0%}", flush=True)


if __name__ == "__main__":
    main()
