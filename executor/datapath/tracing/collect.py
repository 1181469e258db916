"""Compile, attach, and read what was counted; everything in the kernel goes with this process."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Optional

from datapath.tracing import reasons, requirements
from datapath.tracing.source import DROPS, OTHER, SOURCE, TRACEPOINTS

_ETHERTYPES = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "VLAN"}
_V4_MAPPED = IPv6Address("::ffff:0.0.0.0").packed[:12]

Endpoint = tuple[str, int]
"""(address, port) of TCP."""


class CompileError(Exception):
    """bcc or the kernel refused the programs; `log` is what the compiler and the verifier said."""

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Drop:
    """Packets that the kernel freed at one place for one reason."""

    reason: Optional[str]
    location: str
    protocol: str
    packets: int


@dataclass(frozen=True)
class Connections:
    """TCP of one service on this node; `service` is None for all that are no service's."""

    service: Optional[str]
    retransmits: int
    samples: int
    mean_us: Optional[int]
    min_us: Optional[int]
    max_us: Optional[int]


class Collector:
    """Counts from the moment it is made."""

    def __init__(self, endpoints: Mapping[Endpoint, str]) -> None:
        """Compile for the running kernel and attach.

        Args:
            endpoints: frontends and backends of services -> name of the service.

        Raises:
            MissingError, CompileError
        """
        self._bcc = requirements.bcc()
        description = requirements.events(TRACEPOINTS).joinpath(*DROPS.split(":"), "format").read_text()
        self._reasons = reasons.parse(description)
        self._services = sorted(set(endpoints.values()))
        flags = [f"-DROWS={len(self._services) + 1}", f"-DENDPOINTS={max(len(endpoints), 1)}"]
        flags += ["-DHAS_REASON"] if self._reasons is not None else []
        self._bpf = self._compile(flags)
        self._fill(endpoints)

    def _compile(self, flags: Sequence[str]) -> Any:
        with _stderr() as told:
            try:
                return self._bcc.BPF(text=SOURCE, cflags=list(flags))
            except Exception as error:  # bcc raises nothing more exact
                raise CompileError(str(error), told()) from error

    def _fill(self, endpoints: Mapping[Endpoint, str]) -> None:
        rows = {name: index for index, name in enumerate(self._services, OTHER + 1)}
        table = self._bpf["endpoints"]
        for (address, port), service in endpoints.items():
            key = table.Key()
            ctypes.memmove(key.address, _packed(address), 16)
            key.port = port
            table[key] = table.Leaf(rows[service])

    def drops(self) -> list[Drop]:
        """What the kernel dropped since this was made, most first."""
        found = [self._drop(key, leaf.value) for key, leaf in self._bpf["drops"].items()]
        return sorted(found, key=lambda drop: (-drop.packets, drop.location, drop.protocol))

    def _drop(self, key: Any, packets: int) -> Drop:
        reason = None if self._reasons is None else self._reasons.get(key.reason, str(key.reason))
        location = self._bcc.BPF.ksym(key.location, show_offset=False).decode()
        return Drop(reason, location, _ETHERTYPES.get(key.protocol, f"{key.protocol:#06x}"), packets)

    def connections(self) -> list[Connections]:
        """TCP of each service, in order of their names; the rest last."""
        table = self._bpf["rows"]
        named = [(index, name) for index, name in enumerate(self._services, OTHER + 1)]
        return [_connections(name, table[index]) for index, name in (*named, (OTHER, None))]

    def close(self) -> None:
        """Detach."""
        self._bpf.cleanup()


def _connections(service: Optional[str], cpus: Any) -> Connections:
    samples = sum(each.samples for each in cpus)
    return Connections(
        service,
        retransmits=sum(each.retransmits for each in cpus),
        samples=samples,
        mean_us=sum(each.sum_us for each in cpus) // samples if samples else None,
        min_us=min((each.min_us for each in cpus if each.samples), default=None),
        max_us=max((each.max_us for each in cpus if each.samples), default=None),
    )


def _packed(address: str) -> bytes:
    packed = ip_address(address).packed
    return packed if len(packed) == 16 else _V4_MAPPED + packed


@contextmanager
def _stderr() -> Iterator[Any]:
    """Keep what the compiler, which is a library, writes to file descriptor 2; gives a function that tells it."""
    with tempfile.TemporaryFile() as stream:
        kept = os.dup(2)
        os.dup2(stream.fileno(), 2)

        def told() -> str:
            stream.seek(0)
            return stream.read().decode(errors="replace")

        try:
            yield told
        finally:
            os.dup2(kept, 2)
            os.close(kept)
