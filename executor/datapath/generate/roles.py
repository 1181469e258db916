"""Inventory variables that are no options, from the argument specifications of all roles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datapath.generate import argument_specs
from datapath.generate.text import load_yaml
from datapath.spec.options import BY_VARIABLE

_HAND_WRITTEN = ("preflight", "executor", "dsr_backend", "cluster_mesh")
"""Roles whose argument specifications are written by hand."""


@dataclass(frozen=True)
class Variable:
    """An inventory variable of a role."""

    name: str
    role: str
    row: dict[str, Any]
    """Its row of the argument specification."""

    @property
    def description(self) -> list[str]:
        """Its paragraphs."""
        return lines(self.row["description"])


def lines(description: Any) -> list[str]:
    """A description, which may be one text or several, as several."""
    return [description] if isinstance(description, str) else list(description)


def other_variables(root: Path) -> list[Variable]:
    """Each variable once, where it is first told."""
    found: dict[str, Variable] = {}
    for role, options in _options(root):
        for name, row in options.items():
            if name not in BY_VARIABLE:
                found.setdefault(name, Variable(name, role, row))
    return list(found.values())


def _options(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for role in _HAND_WRITTEN:
        path = root / "roles" / role / "meta" / "argument_specs.yml"
        specs = load_yaml(path.read_text(encoding="utf-8"))["argument_specs"] if path.is_file() else {}
        for entry in specs.values():
            yield role, entry.get("options") or {}
    for role, entry in argument_specs.entries().items():
        yield role, entry["options"]
