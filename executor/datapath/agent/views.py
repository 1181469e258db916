"""Answers about the node's datapath, as JSON documents. Everything comes from the kernel when asked.

They only read, and something may change meanwhile: whoever calls does so by `Turns.glance` or `Turns.look`, but for
`status` and `verify`, which do so themselves, as only their comparison has to be of one moment.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Callable, Optional

from datapath import __version__
from datapath.agent import bandwidth, tables
from datapath.agent.core import Agent
from datapath.agent.findings import drift_count, remarks, unusable
from datapath.agent.pipeline import Prepared
from datapath.agent.report import SHOWN_OPERATIONS
from datapath.compile import layouts
from datapath.compile.endpoints import NodeEndpoint, resolve
from datapath.compile.outcomes import BANDWIDTH_OUTCOMES, NODE_OUTCOMES, OUTCOMES, Outcome
from datapath.kernel.clock import jiffies_hz
from datapath.kernel.read import lut_ids
from datapath.plan.describe import rows
from datapath.sources.health import HealthResult
from datapath.spec.errors import RefusedError, SpecError, SpecErrors, nearest_name
from datapath.spec.options import effective
from datapath.spec.scalars import parse_address, parse_port, split_port
from datapath.spec.services import parse_frontend
from datapath.state.facts import Device
from datapath.state.kernel_state import KernelState, UserProgram
from datapath.state.merged import EffectiveBackend, EffectiveService, HealthKey
from datapath.state.model import Algorithm, DesiredState, Frontend, Program, Protocol, Service

Counters = Mapping[int, tuple[int, int]]


class NotFoundError(Exception):
    """What was asked about does not exist."""

    def __init__(self, error: SpecError) -> None:
        super().__init__(str(error))
        self.error = error


def status(agent: Agent, verbose: bool) -> dict[str, Any]:
    """Health of datapath and agent; with `verbose` every outcome's counter."""
    prepared, problems = None, []
    try:
        prepared = agent.verify()
    except Exception as error:
        problems.append(f"cannot compare the kernel with the desired state: {error}")
    else:
        problems += unusable(prepared) + remarks(prepared)
    return agent.turns.glance(lambda: _status(agent, prepared, problems, verbose))


def _status(agent: Agent, prepared: Optional[Prepared], problems: Sequence[str], verbose: bool) -> dict[str, Any]:
    have = prepared.have if prepared is not None else agent.kernel.read_without_tables()
    desired = agent.desired or DesiredState()
    options = effective(desired.options)
    judged = (prepared.merged if prepared is not None else agent.merged()).services
    done, trouble = agent.last_done, agent.last_trouble
    document = {
        "version": __version__,
        "pid": os.getpid(),
        "uptime": time.time() - agent.started,
        "converged": agent.converged,
        "mode": options["bpf-lb-mode"],
        "algorithm": options["bpf-lb-algorithm"],
        "table_size": options["bpf-lb-maglev-table-size"],
        "acceleration": options["bpf-lb-acceleration"],
        "devices": devices(have, prepared.facts.devices if prepared is not None else {}),
        "dsr_backend": _node(have),
        "bandwidth": _bandwidth(have),
        "services": {"total": len(judged), "healthy": sum(any(b.in_table for b in each.backends) for each in judged)},
        "backends": _backend_totals(agent, judged),
        "endpoints": None if prepared is None else _endpoint_totals(prepared),
        "maps": maps(have),
        "last_apply": None if done is None else asdict(done),
        "last_error": None if trouble is None else asdict(trouble),
        "drift": agent.drift_count,
        "problems": [*problems, *_problems(agent)],
    }
    if verbose:
        document["outcomes"] = outcomes(agent)
        document["node_outcomes"] = node_outcomes(agent)
        document["bandwidth_outcomes"] = bandwidth_outcomes(agent)
    return document


def outcomes(agent: Agent) -> list[dict[str, Any]]:
    """Every way a packet can end at the load balancer, with what was counted."""
    return _outcomes(OUTCOMES, agent.kernel.counters(layouts.OUTCOMES))


def node_outcomes(agent: Agent) -> list[dict[str, Any]]:
    """The same of the programs of this node as a backend; nothing where they have counted nothing."""
    counted = agent.kernel.counters(layouts.NODE_OUTCOMES)
    return _outcomes(NODE_OUTCOMES, counted) if counted else []


def bandwidth_outcomes(agent: Agent) -> list[dict[str, Any]]:
    """The same of the bandwidth manager's programs."""
    counted = agent.kernel.counters(layouts.BANDWIDTH_OUTCOMES)
    return _outcomes(BANDWIDTH_OUTCOMES, counted) if counted else []


def _outcomes(known: Iterable[Outcome], counted: Counters) -> list[dict[str, Any]]:
    table = []
    for index, outcome in enumerate(known):
        packets, size = counted.get(index, (0, 0))
        row = {"name": outcome.name, "verdict": outcome.verdict.value, "packets": packets, "bytes": size}
        table.append({**row, "sentence": outcome.sentence})
    return table


def services(agent: Agent, name: Optional[str]) -> dict[str, Any]:
    """All services, or the one of that name."""
    desired = agent.desired or DesiredState()
    chosen = [service for service in desired.services if name in (None, service.name)]
    if name is not None and not chosen:
        raise _not_found("service", name, "no such service", (each.name for each in desired.services))
    return {"services": service_rows(agent, agent.kernel.read_without_tables(), chosen)}


def service_rows(agent: Agent, have: KernelState, chosen: Iterable[Service]) -> list[dict[str, Any]]:
    """Services with what was counted for them; `have` needs no tables."""
    algorithm = effective((agent.desired or DesiredState()).options)["bpf-lb-algorithm"]
    lister = _Lister(agent, have, algorithm)
    return [lister.service(service) for service in chosen]


def endpoints(agent: Agent, name: Optional[str]) -> dict[str, Any]:
    """All endpoints, or the one of that name (of a pattern: those that it found)."""
    desired = (agent.desired or DesiredState()).endpoints
    found = resolve(desired, agent.kernel.facts(None, (), probe_native=False).devices)
    numbers = bandwidth.numbers(found, agent.kernel.bandwidth_entries())
    chosen = [each for each in found if name in (None, each.name, each.endpoint.name)]
    if name is not None and not chosen:
        raise _not_found("endpoint", name, "no such endpoint", (each.name for each in found))
    publication = agent.publication
    identities = {} if publication is None else {each.name: publication.identity(each.endpoint) for each in chosen}
    return {"endpoints": [_endpoint(each, numbers.get(each.name), identities.get(each.name)) for each in chosen]}


def maglev(agent: Agent, frontend: str, with_slots: bool) -> dict[str, Any]:
    """The lookup table behind a frontend, ADDR:PORT[/PROTO]."""
    have = agent.kernel.read_without_tables()
    known = tables.frontends(have)
    row = next((known[each] for each in _parse_frontend(frontend) if each in known), None)
    if row is None:
        raise _not_found("frontend", frontend, "no such frontend", (str(each) for each in known))
    backends = tables.backends(have)
    table = agent.kernel.read_table(row.lut_id)
    counts = tables.shares(table)
    service = owners(agent).get(row.frontend, "-")
    weights = _weights(agent, service)
    shares = [
        {
            "backend": each.endpoint,
            "id": each.backend_id,
            "weight": weights.get(each.endpoint),
            "state": each.state.name.lower(),
            "slots": counts.get(each.backend_id, 0),
            "share": counts.get(each.backend_id, 0) / (len(table) // 4) if table else 0.0,
        }
        for each in sorted(backends.values(), key=lambda each: (each.address.packed, each.port))
        if each.lut_id == row.lut_id
    ]
    document = {
        "frontend": str(row.frontend),
        "service": service,
        "algorithm": Algorithm(row.algorithm).name.lower(),
        "table_size": len(table) // 4,
        "lut_id": row.lut_id,
        "shares": shares,
    }
    if with_slots:
        document["slots"] = [backends[slot].endpoint if slot in backends else "-" for slot in tables.slots(table)]
    return document


def flows(agent: Agent, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Tracked flows that match the filters client, frontend, backend (ADDR or ADDR:PORT) and protocol."""
    limit = _limit(parameters.get("limit", "100"))
    wanted = _flow_filter(parameters)
    services = owners(agent)
    rows_of_frontends = tables.frontends(agent.kernel.read_without_tables()).values()
    names = {row.lut_id: services.get(row.frontend, "-") for row in rows_of_frontends}
    hz = jiffies_hz()
    matching = (row for row in tables.requests(agent.kernel.flows(), hz) if wanted(row))
    found = list(itertools.islice(matching, None if limit == 0 else limit + 1))
    truncated = 0 < limit < len(found)
    rows = [
        {
            "protocol": row.protocol.name,
            "client": row.client,
            "frontend": row.frontend,
            "snat": row.snat,
            "backend": row.backend,
            "service": names.get(row.lut_id, "-"),
            "idle": round(row.idle, 3),
        }
        for row in (found[:limit] if truncated else found)
    ]
    return {"flows": rows, "truncated": truncated}


def verify(agent: Agent) -> dict[str, Any]:
    """Differences between the kernel and the desired state."""
    prepared = agent.verify()
    foreign = dict(prepared.have.load_balancer.foreign) if prepared.have.load_balancer else {}
    return {
        "drift": list(
            itertools.islice(
                rows(prepared.plan, prepared.compiled.names, prepared.compiled.endpoints), SHOWN_OPERATIONS
            )
        ),
        "drift_count": drift_count(prepared),
        "foreign": foreign,
        "unusable": unusable(prepared),
        "problems": _problems(agent),
    }


def info(agent: Agent) -> dict[str, Any]:
    """Facts of this node and what of ours it holds."""
    facts = agent.kernel.facts(None, (), probe_native=True)
    have = agent.kernel.read_without_tables()
    lb = have.load_balancer
    desired = {each.name: each for each in (agent.desired or DesiredState()).programs}
    described = {
        name: {**asdict(device), "addresses": [str(each) for each in device.addresses]}
        for name, device in facts.devices.items()
    }
    return {
        "version": __version__,
        "kernel": facts.kernel,
        "cpus": facts.cpus,
        "features": dict(facts.features),
        "devices": described,
        "default_devices": list(facts.default_devices),
        "load_balancer": None
        if lb is None
        else {"tag": lb.program_tag, "attachments": dict(lb.attachments), "foreign": dict(lb.foreign)},
        "dsr_backend": _node(have),
        "maps": maps(have),
        "programs": [_program(each, desired.get(name)) for name, each in sorted(have.programs.items())],
    }


class _Lister:
    """Rows of `services`, with one read of the counters for all."""

    def __init__(self, agent: Agent, have: KernelState, algorithm: str) -> None:
        self._agent = agent
        self._judged = {each.service.name: each for each in agent.merged().services}
        self._algorithm = algorithm
        self._frontends = tables.frontends(have)
        self._ids = {(row.lut_id, row.address, row.port): number for number, row in tables.backends(have).items()}
        self._service_stats = agent.kernel.counters(layouts.SERVICE_STATS)
        self._backend_stats = agent.kernel.counters(layouts.BACKEND_STATS)
        self._results: Mapping[HealthKey, HealthResult] = agent.health_results()

    def service(self, service: Service) -> dict[str, Any]:
        judged = self._judged[service.name]
        luts = {
            frontend.protocol.name: self._frontends[frontend].lut_id
            for frontend in service.frontends
            if frontend in self._frontends
        }
        check = service.health_check
        return {
            "name": service.name,
            "frontends": [str(frontend) for frontend in service.frontends],
            "algorithm": service.algorithm.name.lower() if service.algorithm else self._algorithm,
            "mode": "/".join(self._modes(service)) or None,
            "health_check": check.type.value if check else None,
            "traffic": {name: _traffic(self._service_stats, [lut]) for name, lut in luts.items()},
            "backends": [self._backend(judged, backend, list(luts.values())) for backend in judged.backends],
        }

    def _modes(self, service: Service) -> list[str]:
        """How the kernel forwards the service's frontends: snat, dsr or both."""
        rows = [self._frontends[frontend] for frontend in service.frontends if frontend in self._frontends]
        return sorted({"dsr" if row.has_dsr else "snat" for row in rows})

    def _backend(self, service: EffectiveService, judged: EffectiveBackend, luts: list[int]) -> dict[str, Any]:
        backend = judged.backend
        ids = [self._ids.get((lut, backend.address, backend.port), 0) for lut in luts]
        health, result = "unchecked", None
        if judged.cluster:
            health = "published"
        elif service.service.health_check is not None:
            key = HealthKey(service.service.name, backend.address, backend.port)
            health = "healthy" if self._agent.health.get(key, True) else "unhealthy"
            result = self._results.get(key)
        return {
            "backend": str(backend),
            "weight": backend.weight,
            "state": judged.state.name.lower(),
            "in_table": judged.in_table,
            "health": health,
            "cluster": judged.cluster or None,
            "reason": result.reason if result else "",
            "since": result.since if result else None,
            **_traffic(self._backend_stats, [number for number in ids if number]),
        }


def _traffic(counters: Counters, ids: list[int]) -> dict[str, int]:
    found = [counters.get(number, (0, 0)) for number in ids]
    return {"packets": sum(packets for packets, _ in found), "bytes": sum(size for _, size in found)}


def devices(have: KernelState, facts: Mapping[str, Device]) -> dict[str, Any]:
    """What is attached where; with `facts` also what each device could do, and why not."""
    if have.load_balancer is None:
        return {}
    attachments, foreign = have.load_balancer.attachments, have.load_balancer.foreign
    rows: dict[str, Any] = {}
    for name in sorted({*attachments, *foreign}):
        rows[name] = {"mode": attachments.get(name), "problem": foreign.get(name)}
        device = facts.get(name)
        if device is not None:
            rows[name]["driver"] = device.driver
            rows[name]["native_xdp"] = device.native_xdp
            rows[name]["native_xdp_reason"] = device.native_xdp_reason
            rows[name]["native_xdp_remedy"] = device.native_xdp_remedy
    return rows


def _node(have: KernelState) -> Optional[dict[str, Any]]:
    """Where this node's programs as a backend are attached; None where it has none."""
    if have.node is None:
        return None
    return {"devices": sorted(have.node.devices), "problems": dict(have.node.problems)}


def _bandwidth(have: KernelState) -> Optional[dict[str, Any]]:
    """Where the bandwidth manager's programs are attached; None where it has none."""
    loaded = have.bandwidth
    if loaded is None:
        return None
    return {
        "native": sorted(loaded.native),
        "endpoints": sorted(loaded.endpoints),
        "qdiscs": {device: qdisc.text for device, qdisc in have.own_qdiscs.items()},
        "problems": dict(loaded.problems),
    }


def maps(have: KernelState) -> list[dict[str, Any]]:
    """Sizes, and fill where desired state decides the contents (flow maps forget by themselves)."""
    rows = []
    for name, size in sorted(have.map_sizes.items()):
        entries: Optional[int] = None
        if name == layouts.BACKENDS:
            entries = len(tables.backends(have))
        elif name == layouts.LUTS:
            # Those that packets can reach; whether they are there, a comparison tells.
            entries = len(lut_ids(have.entries))
        elif name in have.entries:
            entries = len(have.entries[name])
        rows.append({"name": name, "entries": entries, "size": size})
    return rows


def _endpoint(each: NodeEndpoint, number: Optional[int], identity: Optional[int]) -> dict[str, Any]:
    endpoint = each.endpoint
    return {
        "name": each.name,
        "state": "present" if each.present else "pending",
        "interface": each.device.name if each.device is not None else endpoint.interface or endpoint.interfaces,
        "host": endpoint.host,
        "number": number,
        "identity": identity,
        "labels": dict(endpoint.labels),
        "addresses": [str(address) for address in endpoint.addresses],
    }


def _endpoint_totals(prepared: Prepared) -> dict[str, int]:
    found = resolve(prepared.desired.endpoints, prepared.facts.devices)
    return {"total": len(found), "present": sum(each.present for each in found)}


def _backend_totals(agent: Agent, judged: Sequence[EffectiveService]) -> dict[str, int]:
    all_backends = [(each.service, backend) for each in judged for backend in each.backends]
    unhealthy = sum(
        service.health_check is not None
        and not agent.health.get(HealthKey(service.name, each.backend.address, each.backend.port), True)
        for service, each in all_backends
    )
    return {"total": len(all_backends), "healthy": len(all_backends) - unhealthy}


def _problems(agent: Agent) -> list[str]:
    lost = [f"{agent.lost}; forwarding is left as it is"] if agent.lost is not None else []
    return lost + list(agent.own_problems.values()) + list(agent.warnings)


def _program(each: UserProgram, desired: Optional[Program]) -> dict[str, Any]:
    """What the kernel has; what that was loaded from, the desired state alone knows."""
    program = each.program
    return {
        "name": program.name,
        "object": desired.object_path if desired is not None else "",
        "source": desired.source if desired is not None else None,
        "function": program.function,
        "hook": program.hook.value,
        "where": program.device or program.cgroup,
        "tag": each.tag,
    }


def owners(agent: Agent) -> dict[Frontend, str]:
    """Frontend -> name of the service that has it."""
    services = (agent.desired or DesiredState()).services
    return {frontend: each.name for each in services for frontend in each.frontends}


def _weights(agent: Agent, name: str) -> dict[str, int]:
    """Backend -> its weight, of a service."""
    judged = (each for each in agent.merged().services if each.service.name == name)
    return {str(each.backend): each.backend.weight for service in judged for each in service.backends}


def _parse_frontend(text: str) -> list[Frontend]:
    """The frontends that `text` can mean: without a protocol TCP, then UDP."""
    try:
        frontend = parse_frontend(text)
    except RefusedError as error:
        allowed = "VIP:PORT or VIP:PORT/PROTO, as 192.0.2.10:80/TCP or [2001:db8::10]:53/UDP"
        raise SpecErrors([SpecError("command line", "frontend", text, error.message, allowed)]) from error
    return [frontend] if "/" in text else [replace(frontend, protocol=each) for each in Protocol]


def _limit(text: str) -> int:
    if not text.isdigit():
        raise SpecErrors([SpecError("command line", "limit", text, "not a number", "0 (all) or more")])
    return int(text)


def _flow_filter(parameters: Mapping[str, str]) -> Callable[[tables.FlowRow], bool]:
    places = {
        name: _endpoint_filter(name, parameters[name])
        for name in ("client", "frontend", "backend")
        if name in parameters
    }
    protocol = parameters.get("protocol", "").upper()

    def wanted(row: tables.FlowRow) -> bool:
        if protocol and row.protocol.name != protocol:
            return False
        return all(matches(getattr(row, name)) for name, matches in places.items())

    return wanted


def _endpoint_filter(name: str, text: str) -> Callable[[str], bool]:
    host, port = split_port(text)
    try:
        address = parse_address(host)
        number = parse_port(port) if port else None
    except RefusedError as error:
        raise SpecErrors([SpecError("command line", name, text, error.message, "ADDR or ADDR:PORT")]) from error
    if number is not None:
        exact = tables.endpoint(address, number)
        return lambda endpoint: endpoint == exact
    prefix = tables.endpoint(address, 0)[:-1]
    return lambda endpoint: endpoint.startswith(prefix)


def _not_found(path: str, value: str, message: str, known: Any) -> NotFoundError:
    candidates = sorted(known)
    allowed = ", ".join(candidates[:20]) + (" ..." if len(candidates) > 20 else "") if candidates else "there is none"
    return NotFoundError(SpecError("command line", path, value, message, allowed, nearest_name(value, candidates)))
