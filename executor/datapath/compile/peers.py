"""Other load balancers: the ring in which they hand each other ICMP errors about flows that they do not have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Optional

from datapath.compile.errors import Problems
from datapath.compile.layouts import pack_address
from datapath.spec.modes import uses
from datapath.state.kernel_state import Entries
from datapath.state.model import IPAddress, Mode

OPTION = "datapath-lb-peers"
MOST = 1024
"""Members of all rings."""


def members(options: Mapping[str, Any]) -> tuple[IPAddress, ...]:
    """Addresses of all load balancers, this one included; none where no service can have SNAT.

    With direct server return every load balancer knows where an error belongs.
    """
    return tuple(options[OPTION]) if Mode.SNAT in uses(options) else ()


def rings(addresses: Collection[IPAddress]) -> Entries:
    """Contents of map PEERS: each member's successor in the order of addresses, each family by itself.

    All load balancers have the same order, so that no error goes around twice. Who is alone has nobody to hand one to.
    """
    found: dict[bytes, bytes] = {}
    for version in (4, 6):
        ring = sorted((each for each in addresses if each.version == version), key=pack_address)
        if len(ring) > 1:
            found.update(zip(map(pack_address, ring), map(pack_address, [*ring[1:], ring[0]])))
    return found


def check(addresses: tuple[IPAddress, ...], sources: Mapping[int, Optional[IPAddress]], problems: Problems) -> None:
    """Refuse a ring that this node is no member of, and more members than there is room for.

    `sources` maps an IP version to the address that translated requests of this node carry.
    """
    path, texts = "options.values.lb_peers", [str(each) for each in addresses]
    if len(addresses) > MOST:
        problems.refuse(path, len(addresses), f"there is room for {MOST} load balancers", f"at most {MOST}")
    for version, source in sources.items():
        if source is None or source in addresses or not any(each.version == version for each in addresses):
            continue
        problems.refuse(
            path,
            texts,
            f"the requests of this node carry {source}, which is not among {', '.join(texts)}: the other load balancers"
            " would not take the errors that it hands on, nor send it those about its flows",
            f"a list that has {source}, or none of IPv{version}; option direct-routing-device chooses the address",
        )
