"""Violations of the specification, in the shape that the command line and the modules show."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Optional

_LONGEST_NAME = 128
"""Names beyond this length are cut before they are compared: no option or field is that long."""


class RefusedError(ValueError):
    """One value is refused; whoever knows the value's place turns this into a `SpecError`."""

    def __init__(self, message: str, allowed: Optional[str] = None, nearest: Optional[str] = None) -> None:
        super().__init__(message)
        self.message = message
        self.allowed = allowed
        self.nearest = nearest


@dataclass(frozen=True)
class SpecError:
    """One violation."""

    document: str
    """Section of the desired state: `options`, `services` or `programs`; `document` for the whole."""
    path: str
    """Where in the document, as `services.items[0].frontends[1].port`."""
    value: Any
    message: str
    allowed: Optional[str] = None
    nearest: Optional[str] = None
    """The valid name that was probably meant."""

    def as_dict(self) -> dict[str, Any]:
        """The violation as the command line's JSON shows it."""
        return asdict(self)

    def __str__(self) -> str:
        hints = []
        if isinstance(self.value, (str, int, float)):
            hints.append(f"value: {self.value!r:.80}")
        if self.allowed:
            hints.append(f"allowed: {self.allowed}")
        if self.nearest:
            hints.append(f"nearest: {self.nearest}")
        return f"{self.path}: {self.message}" + (f" ({'; '.join(hints)})" if hints else "")


class SpecErrors(Exception):  # noqa: N818 - it carries all of them, and the name says so
    """All violations of one document; never empty."""

    def __init__(self, errors: Iterable[SpecError]) -> None:
        self.errors: tuple[SpecError, ...] = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))


def in_lower_case(name: str, form: re.Pattern[str]) -> Optional[str]:
    """The name in lower case, where that has the form that is asked for."""
    lowered = name.lower()
    return lowered if form.fullmatch(lowered) else None


def nearest_name(name: object, candidates: Iterable[str]) -> Optional[str]:
    """The candidate most like `name`, None when nothing is like it."""
    if not isinstance(name, str):
        return None
    wanted = name[:_LONGEST_NAME].strip().lower().replace("_", "-")
    spelled = {candidate.lower().replace("_", "-"): candidate for candidate in candidates}
    found = difflib.get_close_matches(wanted, spelled, n=1, cutoff=0.6)
    return spelled[found[0]] if found else None
