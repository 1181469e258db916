"""Sysctls, through /proc/sys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Optional

from datapath.compile.bandwidth import SYSCTLS

_ROOT = Path("/proc/sys")
_PER_DEVICE = ("conf", "neigh")
_READ_FOR_EVERY_DEVICE = (
    "net.ipv4.conf.{}.forwarding",
    "net.ipv4.conf.{}.rp_filter",
    "net.ipv6.conf.{}.forwarding",
    "net.ipv6.conf.{}.accept_ra",
)
_READ = ("net.ipv4.ip_local_port_range", *SYSCTLS)


def path(name: str) -> Path:
    """File of a sysctl; a device's name inside it may hold dots (`net.ipv4.conf.eth0.100.forwarding`)."""
    parts = name.split(".")
    if parts[0] == "net" and len(parts) > 5 and parts[2] in _PER_DEVICE:
        parts = [*parts[:3], ".".join(parts[3:-1]), parts[-1]]
    return _ROOT.joinpath(*parts)


def read(name: str) -> Optional[str]:
    """Value of a sysctl, fields separated by one space; None where this kernel (or device) has none."""
    try:
        return " ".join(path(name).read_text().split())
    except OSError:
        return None


def write(name: str, value: str) -> None:
    """Set a sysctl."""
    path(name).write_text(value + "\n")


def read_all(devices: Iterable[str]) -> dict[str, str]:
    """The sysctls that the datapath has an interest in, for these devices."""
    names = [*_READ, *(pattern.format(device) for device in devices for pattern in _READ_FOR_EVERY_DEVICE)]
    values = ((name, read(name)) for name in names)
    return {name: value for name, value in values if value is not None}
