"""What there is to say of a comparison, and of what the kernel holds."""

from __future__ import annotations

from datapath.agent import problems
from datapath.agent.pipeline import Prepared
from datapath.compile import endpoints
from datapath.state.kernel_state import KernelState


def drift_count(prepared: Prepared) -> int:
    """Differences: operations that would heal them, devices where a foreign program sits, programs past healing."""
    foreign = prepared.have.load_balancer.foreign if prepared.have.load_balancer else {}
    return len(prepared.plan.operations) + len(foreign) + len(prepared.unusable)


def unusable(prepared: Prepared) -> list[str]:
    """Why users' programs cannot be what is desired, one sentence each."""
    errors = [row for each in prepared.unusable.values() for row in problems.as_errors(each)]
    return [f"{row['path']}: {row['message']}; it stays as it is" for row in errors]


def remarks(prepared: Prepared) -> list[str]:
    """What to know of endpoints that wait for their device, and of other clusters' backends that cannot be used."""
    return [*endpoints.remarks(prepared.desired.endpoints, prepared.facts.devices), *prepared.merged.remarks]


def removable(have: KernelState) -> list[str]:
    """What of ours is in the kernel, one line each."""
    lines = []
    if have.load_balancer is not None:
        lines += [f"load balancer on {device}" for device in sorted(have.load_balancer.attachments)]
        lines += [f"map {name}" for name in sorted(have.map_sizes)]
    if have.node is not None:
        lines += [f"backend's programs on {device}" for device in sorted(have.node.devices)]
    if have.bandwidth is not None:
        lines += [
            f"bandwidth manager on {device}" for device in sorted(have.bandwidth.native | have.bandwidth.endpoints)
        ]
    lines += ["BBR of the host's own sockets"] if have.host_bbr is not None else []
    lines += [f"qdisc of {device}" for device in have.own_qdiscs]
    lines += [f"program {name}" for name in sorted(have.programs)]
    lines += [f"neighbour {each.address} on {each.device}" for each in sorted(have.neighbours, key=str)]
    return lines
