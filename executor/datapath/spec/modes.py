"""Forwarding modes: which services have direct server return, and what that asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional

from datapath.state.model import Mode, Protocol

MODES = ("snat", "dsr", "hybrid")
DISPATCHES = ("opt", "ipip", "geneve")


def uses(options: Mapping[str, Any]) -> frozenset[Mode]:
    """The modes that services may have by these (effective) options."""
    if options["bpf-lb-mode-annotation"] or options["bpf-lb-mode"] == "hybrid":
        return frozenset(Mode)
    return frozenset({Mode(options["bpf-lb-mode"])})


def mode_of(own: Optional[Mode], protocol: Protocol, options: Mapping[str, Any]) -> Mode:
    """The mode of a service's frontends of one protocol; `own` is what the service chose."""
    if own is not None:
        return own
    if options["bpf-lb-mode"] == "hybrid":
        return Mode.DSR if protocol is Protocol.TCP else Mode.SNAT
    return Mode(options["bpf-lb-mode"])


def tunnels_in_ip(options: Mapping[str, Any]) -> bool:
    """Whether a service may have its packets wrapped into IP."""
    return options["bpf-lb-dsr-dispatch"] == "ipip" and Mode.DSR in uses(options)
