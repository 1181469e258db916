"""Answer about rates of endpoints: what is configured, and what was counted."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping
from typing import Any

from datapath.agent.core import Agent
from datapath.compile.endpoints import NodeEndpoint, resolve
from datapath.compile.layouts import (
    BANDWIDTH_ENDPOINTS,
    BANDWIDTH_RATES,
    ENDPOINT_HOST,
    RATE_EGRESS,
    Rate,
    RateKey,
    Traffic,
)
from datapath.state.kernel_state import Entries
from datapath.state.model import DesiredState


def rates(agent: Agent) -> dict[str, Any]:
    """Each endpoint in each direction, as the kernel has it, with counters that grow; asked twice they make a rate."""
    entries = agent.kernel.bandwidth_entries()
    counted = agent.kernel.traffic()
    when = time.monotonic()
    devices = agent.kernel.facts(None, (), probe_native=False).devices
    found = resolve((agent.desired or DesiredState()).endpoints, devices)
    names = {number: name for name, number in numbers(found, entries).items()}
    rows = [_row(names, key, value, counted) for key, value in sorted(entries.get(BANDWIDTH_RATES, {}).items())]
    return {"when": when, "rates": sorted(rows, key=lambda row: (row["endpoint"], row["direction"]))}


def numbers(found: Iterable[NodeEndpoint], entries: Mapping[str, Entries]) -> dict[str, int]:
    """Endpoint -> its number, of those that have one."""
    by_index = {
        struct.unpack("=I", key)[0]: struct.unpack("=I", value)[0]
        for key, value in entries.get(BANDWIDTH_ENDPOINTS, {}).items()
    }
    hosts = any(RateKey.from_buffer_copy(key).endpoint == ENDPOINT_HOST for key in entries.get(BANDWIDTH_RATES, ()))
    own = {each.name: by_index.get(each.device.index) for each in found if each.device is not None}
    own.update({each.name: ENDPOINT_HOST for each in found if each.endpoint.host and hosts})
    return {name: number for name, number in own.items() if number is not None}


def _row(names: Mapping[int, str], key: bytes, value: bytes, counted: Mapping[bytes, Traffic]) -> dict[str, Any]:
    place, rate = RateKey.from_buffer_copy(key), Rate.from_buffer_copy(value)
    traffic = counted.get(key, Traffic())
    return {
        "endpoint": names.get(place.endpoint, f"endpoint {place.endpoint}"),
        "number": place.endpoint,
        "direction": "egress" if place.direction == RATE_EGRESS else "ingress",
        "bits_per_second": 8 * rate.bytes_per_second or None,
        "priority": rate.priority or None,
        **{name: getattr(traffic, name) for name, _ in Traffic._fields_},
    }
