"""What a person decided about tiles, applied to a data set by the content of a pair: it survives regeneration."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from hepipe.dataset.decisions import Decision, DecisionFile, table_text
from hepipe.errors import ConfigError
from hepipe.specs.base import Spec
from hepipe.specs.dataset import CurationRule, CurationSpec
from hepipe.stores.provenance import digest

if TYPE_CHECKING:
    from hepipe.dataset.cases import CaseTiles

ID_DIGITS = 32
Effect = Literal["kept", "dropped", "dropped already", "brought back", "not brought back", "changed", "gone"]
EFFECT_COLUMNS = ("content_id", "tile_id", "decision", "reason", "effect")
UNMATCHED: tuple[Effect, ...] = ("changed", "gone")


def content_id(row: Mapping[str, Any]) -> str:
    """What a tile pair is called by its pixels: 32 hex digits over the hashes of both stains.

    The same pixels under another tile id, grid or case have the same content id.

    Args:
        row: Of a tile table or an index; a tile without pixels has no hashes and hence no content id.

    Raises:
        ValueError: The row has no hash of one stain.
    """
    he, ihc = row["he_sha256"], row["ihc_sha256"]
    if not he or not ihc:
        raise ValueError(f"tile {row.get('tile_id')}: no pixels, so no content id")
    return hashlib.sha256(f"{he}:{ihc}".encode()).hexdigest()[:ID_DIGITS]


@dataclass(frozen=True)
class Applied:
    """What became of one decision on one tile.

    Attributes:
        decision: The decision.
        tile_id: Of the tile as it is called now; the decision's own where there is none.
        case_id: Of the tile; empty where unknown.
        effect: kept and dropped say what is new or the same; "dropped already": by a filter; "not brought back": kept
            against a filter, which the config does not allow; changed: a tile of that id is there with other pixels;
            gone: there is neither.
    """

    decision: Decision
    tile_id: str
    case_id: str
    effect: Effect


class CardCuration(Spec):
    """What the decisions of people did to a data set."""

    n_files: int
    n_decisions: int
    n_dropped: int = 0
    n_brought_back: int = 0
    n_not_brought_back: int = 0
    n_changed: int = 0
    n_gone: int = 0
    by_reason: Mapping[str, int] = {}
    by_case: Mapping[str, int] = {}
    rule: CurationRule
    keep_overrides: bool
    digest: str


@dataclass(frozen=True)
class Curated:
    """What decisions did.

    Attributes:
        applied: Each decision on each tile, by tile id.
        card: The counts; None without decisions.
        warnings: What a person should know of decisions that could not be followed.
    """

    applied: tuple[Applied, ...] = ()
    card: CardCuration | None = None
    warnings: tuple[str, ...] = ()


def combined(files: Sequence[Sequence[Decision] | DecisionFile], rule: CurationRule) -> dict[str, Decision]:
    """One decision on each pair from those of several readers, a file each.

    Args:
        files: By rank.
        rule: either: dropped when anyone drops it. agreed: decided where every reader decided, and alike.
            first: as the first reader says who decided it.
    """
    rows = [list(one.decisions.values()) if isinstance(one, DecisionFile) else list(one) for one in files]
    votes: dict[str, list[Decision]] = {}
    for decisions in rows:
        for decision in decisions:
            votes.setdefault(decision.content_id, []).append(decision)
    found = {}
    for key, cast in votes.items():
        drops = [vote for vote in cast if vote.decision == "drop"]
        if rule == "first":
            found[key] = cast[0]
        elif rule == "either":
            found[key] = _with_reason(drops) if drops else cast[0]
        elif len(cast) == len(rows) and len(drops) in (0, len(cast)):
            found[key] = _with_reason(cast)
    return found


def _with_reason(votes: Sequence[Decision]) -> Decision:
    """The first that says why; the first where none does."""
    return next((vote for vote in votes if vote.reason), votes[0])


def curate(
    cases: Sequence[CaseTiles], files: Sequence[DecisionFile], spec: CurationSpec
) -> tuple[list[CaseTiles], Curated]:
    """The cases with the decisions of people in their `keep`, and what became of each decision.

    Identical pixels under several tile ids share their decision. Without files nothing changes and there is no card.

    Raises:
        ConfigError: A file has no decision on any tile of this data set.
    """
    if not files:
        return list(cases), Curated()
    keys: dict[str, list[tuple[int, str]]] = {}
    for number, case in enumerate(cases):
        for tile in case.tiles:
            if tile["he_sha256"] and tile["ihc_sha256"]:
                keys.setdefault(content_id(tile), []).append((number, str(tile["tile_id"])))
    tile_ids = {str(tile["tile_id"]) for case in cases for tile in case.tiles}
    for file in files:
        _check_belongs(file, keys, tile_ids)
    decided = combined(files, spec.rule)
    keep = [dict(case.keep) for case in cases]
    # A keep brings back what a filter dropped, not what an import left out, such as the worst aligned.
    left_out = {str(tile["tile_id"]) for case in cases for tile in case.tiles if tile.get("problem")}
    case_of = {str(tile["tile_id"]): str(tile["case_id"] or "") for case in cases for tile in case.tiles}
    applied = []
    for key, decision in decided.items():
        for number, tile_id in keys.get(key, ()):
            overrides = spec.keep_overrides and tile_id not in left_out
            effect = _effect(decision, passes=keep[number][tile_id], overrides=overrides)
            applied.append(Applied(decision, tile_id, case_of[tile_id], effect))
            keep[number][tile_id] = effect in ("kept", "brought back")
        if key not in keys:
            lost: Effect = "changed" if decision.tile_id in tile_ids else "gone"
            applied.append(Applied(decision, decision.tile_id, "", lost))
    applied.sort(key=lambda one: (one.tile_id, one.decision.content_id))
    changed = [replace(case, keep=kept) for case, kept in zip(cases, keep, strict=True)]
    card = _card(applied, decided, files, spec)
    return changed, Curated(tuple(applied), card, tuple(_warnings(card, files)))


def _effect(decision: Decision, *, passes: bool, overrides: bool) -> Effect:
    if decision.decision == "drop":
        return "dropped" if passes else "dropped already"
    if passes:
        return "kept"
    return "brought back" if overrides else "not brought back"


def _check_belongs(file: DecisionFile, keys: Mapping[str, object], tile_ids: set[str]) -> None:
    if not file.decisions or any(key in keys for key in file.decisions):
        return
    same = sum(one.tile_id in tile_ids for one in file.decisions.values())
    example = next(iter(file.decisions.values())).tile_id
    if same:
        why = (
            f"{same} of its tile ids are there, with other pixels: the tiles were made anew from other slides or with "
            "other settings. Curate them again, or take the file out of curation.decisions"
        )
    else:
        why = f"it names tiles such as {example[:80]!r}: is it the file of another data set? See curation.decisions"
    raise ConfigError(
        f"decisions {file.name}: none of its {len(file)} decisions is about any of the {len(tile_ids)} tiles of this "
        f"data set; {why}"
    )


def _card(
    applied: Sequence[Applied], decided: Mapping[str, Decision], files: Sequence[DecisionFile], spec: CurationSpec
) -> CardCuration:
    effects = Counter(one.effect for one in applied)
    dropped = [one for one in applied if one.effect == "dropped"]
    return CardCuration(
        n_files=len(files),
        n_decisions=len(decided),
        n_dropped=effects["dropped"],
        n_brought_back=effects["brought back"],
        n_not_brought_back=effects["not brought back"],
        n_changed=effects["changed"],
        n_gone=effects["gone"],
        by_reason=dict(sorted(Counter(drop_reason(one.decision) for one in dropped).items())),
        by_case=dict(sorted(Counter(one.case_id or "unknown" for one in dropped).items())),
        rule=spec.rule,
        keep_overrides=spec.keep_overrides,
        digest=decisions_digest(decided.values()),
    )


def drop_reason(decision: Decision) -> str:
    """Why a tile that a person dropped is not in the data set, as the filters' reasons read."""
    return f"curation:{decision.reason}" if decision.reason else "curation"


def decisions_digest(decisions: Any) -> str:
    """SHA-256 of what was decided about which pixels; who decided it, and when, changes no tile."""
    return digest(sorted([one.content_id, one.decision, one.reason] for one in decisions))


def effects_text(applied: Sequence[Applied]) -> str:
    """Every decision and what became of it, as CSV."""
    return table_text(
        EFFECT_COLUMNS,
        (
            [one.decision.content_id, one.tile_id, one.decision.decision, one.decision.reason, one.effect]
            for one in applied
        ),
    )


def _warnings(card: CardCuration, files: Sequence[DecisionFile]) -> list[str]:
    warnings = []
    if card.n_changed or card.n_gone:
        lost = card.n_changed + card.n_gone
        warnings.append(
            f"{lost} of {card.n_decisions} decisions match no tile: {card.n_changed} tiles have other pixels now, "
            f"{card.n_gone} are gone; curated.csv lists them"
        )
    if card.n_not_brought_back:
        why = (
            "are left out by their import and stay so"
            if card.keep_overrides
            else "stay dropped by a filter; set curation.keep_overrides to bring them back"
        )
        warnings.append(f"{card.n_not_brought_back} tiles that a person keeps {why}")
    for file in files:
        if file.contradicted:
            shown = ", ".join(file.decisions[key].tile_id for key in file.contradicted[:5])
            warnings.append(
                f"decisions {file.name}: {len(file.contradicted)} pairs are decided twice and differently, the last "
                f"row counts: {shown}"
            )
    return warnings
