"""What one row of the option registry says, and how its values are read and written."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from datapath.spec import scalars


class Kind(enum.Enum):
    """Type of an option; the value is the type's name in Ansible's argument specifications."""

    BOOL = "bool"
    INT = "int"
    TEXT = "str"
    LIST = "list"
    ADDRESSES = "list of addresses"
    DURATION = "duration"
    PORT_RANGE = "port range"
    LISTEN_ADDRESS = "listen address"


class Group(enum.Enum):
    """Part of the product that an option belongs to; the value is its heading in the documentation."""

    LOAD_BALANCER = "Load balancer"
    DEVICES = "Devices"
    BACKEND = "Backends"
    BANDWIDTH = "Bandwidth"
    CLUSTER_MESH = "Cluster mesh"
    MAPS = "Map sizes"
    EXECUTOR = "Executor"


@dataclass(frozen=True)
class Option:
    """One row: everything that specifications, samples, documentation and the parser know about an option."""

    key: str
    """Cilium agent key, as in `cilium_config_extra_vars`."""
    param: str
    """Parameter of module `lb_options`."""
    variable: str
    """Inventory variable: Kubespray's name where one exists."""
    kind: Kind
    default: Any
    """Typed, as `parse` returns it."""
    group: Group
    summary: str
    """What it is, one sentence."""
    effect: str
    """What changes when it is set, in whole sentences."""
    choices: tuple[Any, ...] = ()
    """Values that this version implements."""
    minimum: float = 0
    """Lower bound of INT and DURATION (seconds)."""
    maximum: float = 0
    check: Optional[Callable[[Any], None]] = None
    """Further condition on the typed value; raises `RefusedError`. Messages are Cilium's where it has one."""
    values: str = ""
    """Allowed values in words, where kind, choices and bounds do not say it."""
    example: Any = None
    """Value for samples where the default would teach nothing."""

    def parse(self, raw: object) -> Any:
        """The typed value of any scalar spelling; raises `RefusedError`."""
        value = _PARSERS[self.kind](self, raw)
        if self.check is not None:
            self.check(value)
        return value

    def render(self, value: Any) -> Any:
        """The typed value as plain data that `parse` reads back."""
        if self.kind is Kind.DURATION:
            return scalars.render_duration(value)
        if self.kind is Kind.PORT_RANGE:
            return str(value)
        if self.kind is Kind.ADDRESSES:
            return [str(address) for address in value]
        return list(value) if self.kind is Kind.LIST else value

    @property
    def allowed(self) -> str:
        """Allowed values in words."""
        if self.values:
            return self.values
        if self.choices:
            return ", ".join(str(choice) for choice in self.choices)
        if self.kind is Kind.DURATION:
            return f"{scalars.render_duration(self.minimum)} to {scalars.render_duration(self.maximum)}"
        if self.kind is Kind.INT:
            return f"{self.minimum:.0f} to {self.maximum:.0f}"
        return _ALLOWED[self.kind]


def _parse_text(option: Option, raw: object) -> str:
    if not option.choices:
        return scalars.parse_text(raw)
    return scalars.parse_choice(raw, option.choices)


def _parse_int(option: Option, raw: object) -> int:
    return scalars.parse_int(raw, int(option.minimum), int(option.maximum))


_PARSERS: Mapping[Kind, Callable[[Option, object], Any]] = {
    Kind.BOOL: lambda option, raw: scalars.parse_bool(raw),
    Kind.INT: _parse_int,
    Kind.TEXT: _parse_text,
    Kind.LIST: lambda option, raw: scalars.parse_list(raw),
    Kind.ADDRESSES: lambda option, raw: scalars.parse_addresses(raw),
    Kind.DURATION: lambda option, raw: scalars.parse_duration(raw, option.minimum, option.maximum),
    Kind.PORT_RANGE: lambda option, raw: scalars.parse_port_range(raw),
    Kind.LISTEN_ADDRESS: lambda option, raw: scalars.parse_listen_address(raw),
}

_ALLOWED: Mapping[Kind, str] = {
    Kind.BOOL: "true, false",
    Kind.TEXT: "text",
    Kind.LIST: "a list, or words separated by commas or blanks",
    Kind.ADDRESSES: "a list of IPv4 and IPv6 unicast addresses, or text with commas or blanks between them",
    Kind.PORT_RANGE: "FIRST-LAST, both 1 to 65535",
    Kind.LISTEN_ADDRESS: 'ADDRESS:PORT, ":PORT", or "" for off',
}
