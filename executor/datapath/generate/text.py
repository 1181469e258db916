"""YAML and markup for the generators."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml  # type: ignore[import-untyped]  # no stubs in the development environment

_WIDTH = 140
_MARKUP = re.compile(r"\b[CVO]\(([^)]*)\)")


class _Dumper(yaml.SafeDumper):  # type: ignore[misc]
    """Indents lists below their key, as yamllint and ansible-lint ask for."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> Any:
        return super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def to_yaml(data: Any) -> str:
    """Block-style YAML in the given order of keys."""
    return str(
        yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=_WIDTH, allow_unicode=True)
    )


def load_yaml(text: str) -> Any:
    """Plain data."""
    return yaml.safe_load(text)


def flow(value: Any) -> str:
    """A value on one line, as YAML reads it."""
    if (
        isinstance(value, str)
        and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+/:-]*", value)
        and yaml.safe_load(value) == value
    ):
        return value
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(flow(each) for each in value) + "]"
    return json.dumps(value)


def markdown(text: str) -> str:
    """Ansible's markup (`C(...)`, `V(...)`, `O(...)`) as Markdown."""
    return _MARKUP.sub(r"`\1`", text)


def plain(text: str) -> str:
    """Ansible's markup as plain text."""
    return _MARKUP.sub(r"\1", text)
