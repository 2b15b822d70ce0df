"""Keys that stand twice in a configuration file: YAML would take the last and forget the first, without a word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hepipe.errors import ConfigError


def refuse_twice(path: Path) -> None:
    """Whether every key of a YAML or JSON file stands once in its mapping.

    A file that is no YAML is passed over: who reads it says so.

    Raises:
        ConfigError: With the path and both lines of every key that does not.
    """
    import yaml

    with path.open(encoding="utf-8") as file:
        try:
            root = yaml.compose(file, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError):
            return
    problems = list(_twice(root, "", set()))
    if problems:
        raise ConfigError("config:\n  " + "\n  ".join(problems))


def _twice(node: Any, path: str, seen: set[int]) -> Iterator[str]:
    # A node that an alias names again is looked at once: some files hold themselves.
    if id(node) in seen:
        return
    seen.add(id(node))
    if node is None or isinstance(node.value, str):
        return
    lines: dict[str, int] = {}
    for item in node.value:
        if not isinstance(item, tuple):
            yield from _twice(item, path, seen)
            continue
        key, value = item
        name = key.value if isinstance(key.value, str) else ""
        line, here = key.start_mark.line + 1, f"{path}.{name}" if path else name
        if name in lines and name != "<<":
            yield f"{here}: stands in line {lines[name]} and again in line {line}; keep one, or give them two names"
        lines.setdefault(name, line)
        yield from _twice(value, here, seen)
