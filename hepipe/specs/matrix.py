"""Runs that the config gives as a matrix: every model with every preset, data set, seed and set of options."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from hepipe.errors import ConfigError
from hepipe.specs.base import merged

AXES = ("model", "preset", "dataset", "seed", "options")
MOST_RUNS = 1000


def expanded(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Runs with every matrix among them as runs named {model}-{preset}-{dataset}-s{seed}, in order.

    A matrix is an entry of any name that holds `matrix:`, or the entry `matrix` itself; a list stands for several.
    What else stands in the entry goes to each of its runs. A model is a name or `model:preset`. Runs of several
    options end in what the options say.

    Args:
        runs: The section as YAML gave it.

    Raises:
        ConfigError: With the path of the key: an axis that is missing, empty or of another form, a value that stands
            twice, or two runs of one name.
    """
    made: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for name, entry in runs.items():
        for own, run, where in _entry(str(name), entry):
            if own in made:
                raise ConfigError(f"{where}: makes a run {own}, and so does {origin[own]}; rename or drop one of them")
            made[own], origin[own] = run, where
    return made


def _entry(name: str, entry: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, run and place in the config of each run that an entry makes."""
    where = f"runs.{name}"
    if isinstance(entry, Mapping) and "matrix" in entry:
        common = {key: value for key, value in entry.items() if key != "matrix"}
        if twice := [key for key in common if key in AXES]:
            raise ConfigError(f"{where}.{twice[0]}: stands beside matrix; write it inside, as a list")
        matrices, where = entry["matrix"], f"{where}.matrix"
    elif name == "matrix":
        common, matrices = {}, entry
    else:
        yield name, entry, where
        return
    for place, matrix in enumerate(matrices if isinstance(matrices, list) else [matrices]):
        here = f"{where}[{place}]" if isinstance(matrices, list) else where
        yield from ((own, run, here) for own, run in _runs(matrix, common, here))


def _runs(matrix: Any, common: Mapping[str, Any], where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(matrix, Mapping):
        raise ConfigError(f"{where}: a mapping expected, found {type(matrix).__name__}")
    axes = {axis: _values(matrix, axis, where) for axis in AXES}
    common = merged(common, {key: value for key, value in matrix.items() if key not in AXES})
    pairs = _models(axes["model"], axes["preset"], f"{where}.model")
    if len(pairs) * len(axes["dataset"]) * len(axes["seed"]) * len(axes["options"]) > MOST_RUNS:
        raise ConfigError(f"{where}: more than {MOST_RUNS} runs; make the lists shorter")
    for (model, preset), dataset, seed, options in product(pairs, axes["dataset"], axes["seed"], axes["options"]):
        name = f"{model}-{preset}-{dataset}-s{seed}"
        if len(axes["options"]) > 1 and options:
            name += f"-{_word(options)}"
        run = {"model": model, "preset": preset, "dataset": dataset, "seed": seed}
        yield name, {**common, **run, **({"options": options} if options else {})}


def _values(matrix: Mapping[str, Any], axis: str, where: str) -> list[Any]:
    """The values of one axis; a value alone is a list of one."""
    default = {"preset": ["paper"], "seed": [0], "options": [{}]}
    if axis not in matrix and axis not in default:
        raise ConfigError(f"{where}.{axis}: missing; a list of {axis}s expected")
    found = matrix.get(axis, default.get(axis))
    values = found if isinstance(found, list) else [found]
    if not values:
        raise ConfigError(f"{where}.{axis}: an empty list makes no run; give one value at least, or take the key out")
    form: tuple[type, ...] = {"seed": (int,), "options": (Mapping,), "model": (str, Mapping)}.get(axis, (str,))
    seen = []
    for value in values:
        if not isinstance(value, form) or isinstance(value, bool):
            kind = {"seed": "a whole number", "options": "a mapping of options"}.get(axis, "a name")
            raise ConfigError(f"{where}.{axis}: {kind} expected, found {value!r}")
        if value in seen:
            raise ConfigError(f"{where}.{axis}: {value!r} stands twice, so two runs would have one name")
        seen.append(value)
    return values


def _models(models: list[Any], presets: list[str], where: str) -> list[tuple[str, str]]:
    """Model and preset of each; `model:preset`, which YAML reads as a mapping after a space, has its own preset."""
    pairs: list[tuple[str, str]] = []
    for given in models:
        text = given
        if isinstance(given, Mapping):
            text = ":".join(str(word) for pair in given.items() for word in pair) if len(given) == 1 else ""
        model, colon, preset = text.partition(":")
        if not model or (colon and not preset) or ":" in preset:
            raise ConfigError(f"{where}: {given!r}; a model, or model:preset, expected")
        for own in [preset] if colon else presets:
            if (model, own) in pairs:
                raise ConfigError(f"{where}: {model} with preset {own} stands twice")
            pairs.append((model, own))
    return pairs


def _word(options: Mapping[str, Any]) -> str:
    """Options as the end of a name, such as nce_weight2_0."""
    text = "-".join(f"{key}{value}" for key, value in options.items())
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_")
