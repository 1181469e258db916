"""Reading a mapping field by field while collecting every violation with its path."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Optional, TypeVar

from datapath.spec.errors import RefusedError, SpecError, nearest_name

T = TypeVar("T")
H = TypeVar("H", bound=Hashable)


class Violations:
    """Collects what is wrong in one section of the document."""

    def __init__(self, document: str) -> None:
        self.document = document
        self.errors: list[SpecError] = []

    def add(
        self, path: str, value: Any, message: str, allowed: Optional[str] = None, nearest: Optional[str] = None
    ) -> None:
        """Note one violation."""
        self.errors.append(SpecError(self.document, path, value, message, allowed, nearest))

    def refuse(self, path: str, value: Any, error: RefusedError) -> None:
        """Note the refusal of the value at `path`."""
        self.add(path, value, error.message, error.allowed, error.nearest)

    def parse(self, path: str, raw: Any, parse: Callable[[Any], T]) -> Optional[T]:
        """`parse(raw)`, or None after noting why not."""
        try:
            return parse(raw)
        except RefusedError as error:
            self.refuse(path, raw, error)
            return None

    def items(self, path: str, raw: Any) -> Iterator[tuple[str, Any]]:
        """Path and value of each element of a list; None is an empty list."""
        if raw is None:
            return
        if not isinstance(raw, (list, tuple)):
            self.add(path, raw, "not a list", "a list")
            return
        for index, element in enumerate(raw):
            yield f"{path}[{index}]", element


class Fields:
    """One mapping of the document. A field that is null counts as not given."""

    def __init__(self, violations: Violations, path: str, raw: Any, known: Sequence[str]) -> None:
        self.violations = violations
        self.path = path
        self._errors_before = len(violations.errors)
        self._fields: Mapping[Any, Any] = {}
        if not isinstance(raw, Mapping):
            violations.add(path, raw, "not a mapping", f"a mapping with {', '.join(known)}")
            return
        self._fields = raw
        for key in raw:
            if key not in known:
                violations.add(f"{path}.{key}", raw[key], "unknown key", ", ".join(known), nearest_name(key, known))

    @property
    def sound(self) -> bool:
        """Whether nothing was noted since this mapping was opened."""
        return len(self.violations.errors) == self._errors_before

    def given(self, name: str) -> bool:
        """Whether the field has a value."""
        return self._fields.get(name) is not None

    def raw(self, name: str) -> Any:
        """The field's value as it stands in the document; None where not given."""
        return self._fields.get(name)

    def at(self, name: str) -> str:
        """Path of the field."""
        return f"{self.path}.{name}"

    def take(self, name: str, parse: Callable[[Any], T]) -> Optional[T]:
        """The parsed field; None where it is not given or refused."""
        return self.violations.parse(self.at(name), self.raw(name), parse) if self.given(name) else None

    def take_or(self, name: str, parse: Callable[[Any], T], default: T) -> T:
        """The parsed field; `default` where it is not given (or refused: then the violation is noted)."""
        value = self.take(name, parse)
        return default if value is None else value

    def require(self, name: str, parse: Callable[[Any], T], allowed: str) -> Optional[T]:
        """The parsed field; it must be given."""
        if not self.given(name):
            self.violations.add(self.at(name), self.raw(name), "missing", allowed)
            return None
        return self.take(name, parse)

    def distinct(self, name: str, parse: Callable[[Any], H], twice: str) -> tuple[H, ...]:
        """The parsed elements of a list; of one that was there before, `twice` tells with {value} and {first}."""
        found: dict[H, str] = {}
        for path, raw in self.violations.items(self.at(name), self.raw(name)):
            value = self.violations.parse(path, raw, parse)
            if value is None:
                continue
            first = found.setdefault(value, path)
            if first != path:
                self.violations.add(path, raw, twice.format(value=value, first=first))
        return tuple(found)

    def refuse_others(self, names: Sequence[str], why: str) -> None:
        """Note every given field of `names`: it would be ignored, for the reason `why`."""
        for name in names:
            if self.given(name):
                self.violations.add(self.at(name), self.raw(name), why)
