"""The programs of the bandwidth manager, and the entries of their maps."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Optional

from datapath.compile import layouts
from datapath.compile.layouts import BANDWIDTH_DECIDED, ENDPOINT_FIRST, Departure, RateKey, Traffic
from datapath.kernel import abi, bundle, libbpf, tc
from datapath.kernel.bundle import Bundle, Group
from datapath.kernel.entries import Entry, Writer
from datapath.kernel.objects import BANDWIDTH
from datapath.kernel.pins import Pins
from datapath.state.kernel_state import BandwidthPrograms, Entries

BUNDLE = Bundle(
    BANDWIDTH,
    "bandwidth_maps",
    (
        # First: a mark that nobody takes off would choose the device's queue.
        Group("tc_bandwidth", {tc.EGRESS: "tc_bandwidth_egress"}),
        Group("tc_bandwidth_endpoint", {tc.EGRESS: "tc_bandwidth_ingress", tc.INGRESS: "tc_bandwidth_mark"}),
    ),
)


def read(pins: Pins) -> Optional[BandwidthPrograms]:
    """The programs as they are attached, None where nothing of theirs is there."""
    loaded = bundle.read(pins, BUNDLE)
    if loaded is None:
        return None
    native, endpoints = loaded.devices
    return BandwidthPrograms(loaded.config, native, endpoints, loaded.problems)


def entries(pins: Pins) -> dict[str, Entries]:
    """Contents of those maps of BANDWIDTH_DECIDED that exist."""
    directory = bundle.maps(pins, BUNDLE)
    there = [name for name in BANDWIDTH_DECIDED if (directory / name).exists()]
    return {name: dict(bundle.entries(pins, BUNDLE, name)) for name in there}


class DecidedMaps:
    """The maps of BANDWIDTH_DECIDED, as `kernel.maps.Maps` has the load balancer's."""

    def __init__(self, pins: Pins, writer: Writer) -> None:
        self._pins = pins
        self._writer = writer

    def info(self, name: str) -> abi.MapInfo:
        """What the kernel says of a map."""
        with self._opened(name) as fd:
            return libbpf.map_info(fd)

    def put(self, name: str, entries: Sequence[Entry]) -> None:
        """Write entries in order."""
        with self._opened(name) as fd:
            self._writer.put(fd, entries)

    def delete(self, name: str, keys: Sequence[bytes]) -> None:
        """Delete entries. With a rate goes what it counted: its number begins anew."""
        with self._opened(name) as fd:
            self._writer.delete(fd, keys)
        if name != layouts.BANDWIDTH_RATES:
            return
        with self._opened(layouts.BANDWIDTH_STATS) as stats:
            for key in keys:
                libbpf.map_delete(stats, key)
        with self._opened(layouts.BANDWIDTH_DEPARTURES) as departures:
            for rate in map(RateKey.from_buffer_copy, keys):
                slot = 2 * (rate.endpoint - ENDPOINT_FIRST) + rate.direction
                libbpf.map_update(departures, struct.pack("=I", slot), bytes(Departure()))

    @contextmanager
    def _opened(self, name: str) -> Iterator[int]:
        fd = libbpf.pinned(bundle.maps(self._pins, BUNDLE) / name)
        if fd is None:
            raise FileNotFoundError(2, f"map {name} of the bandwidth manager is not there")
        with libbpf.closing(fd):
            yield fd


def traffic(pins: Pins) -> dict[bytes, Traffic]:
    """RateKey -> what passed and what was dropped, of all CPUs together."""
    return {key: _sum(cells) for key, cells in bundle.entries(pins, BUNDLE, layouts.BANDWIDTH_STATS)}


def _sum(cells: bytes) -> Traffic:
    words = memoryview(cells).cast("Q")
    return Traffic(*(sum(words[field :: len(Traffic._fields_)]) for field in range(len(Traffic._fields_))))
