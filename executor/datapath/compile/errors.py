"""What cannot be compiled on this node, in the shape that the parser's refusals have."""

from __future__ import annotations

from typing import Any, Optional

from datapath.spec.errors import SpecError, SpecErrors


class CompileErrors(SpecErrors):
    """All reasons why this node cannot do what is asked; never empty."""


class Problems:
    """Collects what stands against a state (errors) and what is worth a sentence (warnings)."""

    def __init__(self) -> None:
        self.errors: list[SpecError] = []
        self.warnings: list[str] = []

    def refuse(
        self, path: str, value: Any, message: str, allowed: Optional[str] = None, nearest: Optional[str] = None
    ) -> None:
        """Note an error; `path` begins with the section that it is about."""
        self.errors.append(SpecError(path.partition(".")[0], path, value, message, allowed, nearest))

    def warn(self, sentence: str) -> None:
        """Note a warning."""
        self.warnings.append(sentence)

    def raise_if_any(self) -> None:
        """Raise `CompileErrors` where something was refused."""
        if self.errors:
            raise CompileErrors(self.errors)
