"""What a backend needs to answer clients of services with direct server return itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datapath.compile import devices
from datapath.compile.balancer import targets
from datapath.compile.config import sysctl_name
from datapath.compile.errors import Problems
from datapath.compile.layouts import NodeConfig
from datapath.spec.options import effective
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import NodePrograms
from datapath.state.merged import MergedState

_CHECKED = ("1", "2")
"""Values of rp_filter by which the kernel looks at source addresses."""


def wanted(merged: MergedState) -> bool:
    """Whether this node is such a backend."""
    return bool(effective(merged.options)["datapath-dsr-backend"])


def compile_node(
    merged: MergedState, facts: NodeFacts, build_id: bytes, problems: Problems
) -> tuple[NodePrograms, Mapping[str, str]]:
    """The programs and the sysctls that go with them."""
    options = effective(merged.options)
    names = devices.select(options, facts, targets(merged), problems)
    problems.raise_if_any()
    return NodePrograms(_config(options, build_id), frozenset(names)), _sysctls(names, facts)


def _config(options: Mapping[str, Any], build_id: bytes) -> bytes:
    """Every dispatch is taken: which one the load balancers use is theirs to say, and to change under traffic."""
    families = {"enable_ipv4": options["enable-ipv4"], "enable_ipv6": options["enable-ipv6"]}
    config = NodeConfig(**families, enable_opt=1, enable_ipip=1, enable_geneve=1)
    config.build_id[:] = build_id
    return bytes(config)


def _sysctls(names: list[str], facts: NodeFacts) -> dict[str, str]:
    """Loose source checks where there are any: requests carry the client's address, but come from a load balancer.

    Strict ones drop what arrives by another device than the one that leads back to the client. The larger value of
    the device's and of `all` counts.
    """
    loose = {}
    for name in names:
        values = [facts.sysctls.get(sysctl_name(4, each, "rp_filter"), "").strip() for each in (name, "all")]
        if any(value in _CHECKED for value in values):
            loose[sysctl_name(4, name, "rp_filter")] = "2"
    return loose
