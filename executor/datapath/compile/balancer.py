"""The load balancer's part of the kernel state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Optional

from datapath.compile import config, devices, path_mtu, peers, vlans
from datapath.compile.compiled import Compiled
from datapath.compile.errors import Problems
from datapath.compile.hashing import seeds
from datapath.compile.ids import allocate, full_map
from datapath.compile.layouts import ADDRESSES, BACKENDS, PEERS, SERVICES, VLANS_IN, VLANS_OUT
from datapath.compile.services import Parts, Table, TableSettings, compile_parts
from datapath.spec.modes import mode_of
from datapath.spec.options import effective
from datapath.state.facts import NodeFacts
from datapath.state.kernel_state import Entries, KernelState, LoadBalancer, Neighbour
from datapath.state.merged import MergedState
from datapath.state.model import Algorithm, IPAddress, Mode

_MOST_MEMBERS = 65535
"""Backends that a service's 16-bit count can tell."""


def backends(merged: MergedState) -> frozenset[IPAddress]:
    """Addresses of all backends."""
    return frozenset(each.backend.address for service in merged.services for each in service.backends)


def targets(merged: MergedState) -> frozenset[IPAddress]:
    """Addresses that next hops are needed for: those of all backends, and of the other load balancers."""
    return backends(merged).union(peers.members(effective(merged.options)))


@dataclass(frozen=True)
class Balancer:
    """One compilation: its inputs, and a method for each part of the result."""

    merged: MergedState
    facts: NodeFacts
    have: KernelState
    problems: Problems

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """Effective options."""
        return effective(self.merged.options)

    def compile(self, build_id: bytes, previous: Optional[Compiled]) -> Compiled:
        """The whole part; raises `CompileErrors` once everything that can be wrong has been looked at."""
        names = devices.select(self.options, self.facts, targets(self.merged), self.problems)
        modes = self._attachments(names)
        config.check_ports(self.options, self.facts, self.problems)
        self._check_paths([*names, *modes])
        sources = self._sources(names)
        peers.check(self._peers, sources, self.problems)
        sizes = config.map_sizes(self.options)
        settings = self._settings()
        ids = allocate([each.service for each in self.merged.services], self.have, sizes, self.problems)
        self._check_sizes(sizes, settings)
        neighbours = self._neighbours()
        tagged = self._vlans(names, modes, sizes)
        # tables are dear: not for a state that is refused anyway
        self.problems.raise_if_any()
        parts = Parts()
        known: Mapping[int, Table] = {}
        if previous is not None and previous.settings is not None and settings.same_tables(previous.settings):
            known = previous.tables
        for service in self.merged.services:
            compile_parts(parts, service, ids, settings, known)
        ways = config.Ways(
            transmit=devices.can_transmit(modes, self.facts),
            vlans=bool(tagged[VLANS_OUT]),
            several_buffers=devices.has_several_buffers(modes, self.facts),
        )
        packed = config.pack_config(self.options, sources, self.facts.jiffies_hz, build_id, ways)
        state = KernelState(
            map_sizes=sizes,
            entries={
                SERVICES: parts.services,
                BACKENDS: parts.backends,
                ADDRESSES: parts.addresses,
                PEERS: peers.rings(self._peers),
                **tagged,
            },
            luts={lut_id: table.slots for lut_id, table in parts.tables.items()},
            load_balancer=LoadBalancer(packed, modes),
            sysctls=config.sysctls(dict.fromkeys([*names, *modes]), sources, self.facts),
            neighbours=neighbours,
        )
        labels = {lut_id: str(key) for key, lut_id in ids.tables.items()}
        services = {each.service.name: each.service for each in self.merged.services}
        return Compiled(state, names=labels, ids=ids, services=services, settings=settings, tables=parts.tables)

    @cached_property
    def _peers(self) -> tuple[IPAddress, ...]:
        return peers.members(self.options)

    def _settings(self) -> TableSettings:
        return TableSettings(
            size=self.options["bpf-lb-maglev-table-size"],
            seed=seeds(self.options["bpf-lb-maglev-hash-seed"]).table,
            algorithm=Algorithm[self.options["bpf-lb-algorithm"].upper()],
            options=self.options,
        )

    def _attachments(self, names: list[str]) -> dict[str, str]:
        loaded = self.have.load_balancer
        attached = {} if loaded is None else {name: mode for name, mode in loaded.attachments.items() if mode != "tc"}
        return devices.attachments(names, self.options["bpf-lb-acceleration"], self.facts, attached, self.problems)

    def _vlans(self, names: list[str], modes: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Entries]:
        """Maps of VLAN devices; empty at tc, where the kernel puts tags on and takes them off."""
        if "tc" in modes.values():
            return {VLANS_OUT: {}, VLANS_IN: {}}
        served = devices.vlans_served(names, modes, self.facts)
        found = {VLANS_OUT: vlans.leaving(self.facts), VLANS_IN: vlans.arriving(served, self.facts)}
        for name, entries in found.items():
            if len(entries) > sizes[name]:
                message = f"map {name} holds {sizes[name]} VLAN devices, this node has {len(entries)}"
                self.problems.refuse("options.values.devices", len(entries), message, f"at most {sizes[name]}")
        return found

    def _check_paths(self, receiving: list[str]) -> None:
        """Refuse paths that are too narrow for what direct server return adds; warn of clients that must shrink."""
        services = [each.service for each in self.merged.services]
        ways = path_mtu.ways_of(self.facts, backends(self.merged))
        devices_in = [path_mtu.Way(name, self.facts.devices[name].mtu) for name in receiving]
        found = path_mtu.judge(services, self.options, ways, devices_in)
        dispatch = self.options["bpf-lb-dsr-dispatch"]
        for refusal in found.refusals:
            allowed = "a larger MTU there, another dispatch, or bpf-lb-mode: snat"
            self.problems.refuse("options.values.dsr_dispatch", dispatch, refusal, allowed)
        for warning in found.warnings:
            self.problems.warn(warning)

    def _sources(self, names: list[str]) -> dict[int, Optional[IPAddress]]:
        """IP version -> source address, for the families that services or their backends have.

        The other family gets none, so that its addresses may come and go without a reload.
        """
        loaded = config.read_config(self.have)
        direct = self.options["direct-routing-device"]
        candidates = [direct] if direct else list(dict.fromkeys([*self.facts.default_devices, *names]))
        vips = frozenset(frontend.address for each in self.merged.services for frontend in each.service.frontends)
        sources: dict[int, Optional[IPAddress]] = {}
        for version in sorted({address.version for address in vips | backends(self.merged)}):
            kept = config.configured_source(loaded, version)
            sources[version] = config.source_address(version, candidates, self.facts, vips, kept)
            self._check_source(version, sources[version], candidates, vips)
        return sources

    def _needs_source(self, version: int) -> bool:
        """Whether packets to backends of that family carry an address of this node's."""
        dispatch = self.options["bpf-lb-dsr-dispatch"]
        wrapped = dispatch == "geneve" or (dispatch == "ipip" and config.outer_network(self.options, version) is None)
        reached = [
            (each.service, {backend.backend.address.version for backend in each.backends})
            for each in self.merged.services
        ]
        return any(
            wrapped or mode_of(service.mode, frontend.protocol, self.options) is Mode.SNAT
            for service, versions in reached
            for frontend in service.frontends
            if version in (versions or {frontend.address.version})
        )

    def _check_source(
        self, version: int, source: Optional[IPAddress], names: list[str], vips: frozenset[IPAddress]
    ) -> None:
        """Refuse a node without a source address, and a VIP that would cut the node off as its only address."""
        path, direct = "options.values.direct_routing_device", self.options["direct-routing-device"]
        allowed = f"a device with a global IPv{version} address that is no VIP"
        if source is None:
            if not self._needs_source(version):
                return
            where = ", ".join(names) or "no device"
            self.problems.refuse(
                path,
                direct,
                f"no global IPv{version} address that requests to IPv{version} backends could come from"
                f" (looked at: {where})",
                allowed,
            )
        elif source in vips and self.options["bpf-lb-enable-wildcard-entries"]:
            self.problems.refuse(
                path,
                direct,
                f"VIP {source} is the node's own address, and bpf-lb-enable-wildcard-entries drops what comes to its"
                " other ports: ssh and the replies to health checks too",
                f"{allowed}, or bpf-lb-enable-wildcard-entries: false",
            )

    def _check_sizes(self, sizes: Mapping[str, int], settings: TableSettings) -> None:
        frontends = sum(len(each.service.frontends) for each in self.merged.services)
        if frontends > sizes[SERVICES]:
            full_map(self.problems, SERVICES, sizes[SERVICES], frontends, "frontends")
        most = min(settings.size, _MOST_MEMBERS)
        for each in self.merged.services:
            name = each.service.name
            count = sum(backend.in_table for backend in each.backends)
            if count > most:
                message = f"{count} backends do not fit into a table of {settings.size} slots"
                allowed = f"at most {most}; option bpf-lb-maglev-table-size"
                self.problems.refuse(f"services.{name}.backends", count, message, allowed)
            elif count * 100 > settings.size:
                self.problems.warn(
                    f"service {name}: {count} backends share {settings.size} slots; shares are within 1 % of the"
                    f" weights from {count * 100} slots on (bpf-lb-maglev-table-size)"
                )

    def _neighbours(self) -> frozenset[Neighbour]:
        """Next hops of backends and of other load balancers, and gateways, which lead back to clients."""
        hops = set(self.facts.gateways)
        for service in self.merged.services:
            for each in service.backends:
                hop = self.facts.next_hops.get(each.backend.address)
                if hop is not None and hop.device != "lo":
                    hops.add(hop)
                    continue
                self.problems.warn(
                    f"service {service.service.name}: backend {each.backend} cannot be reached: there is no route to"
                    " it, or it is this node itself, which XDP cannot send to"
                )
        own = {interface.ip for device in self.facts.devices.values() for interface in device.addresses}
        for address in self._peers:
            hop = self.facts.next_hops.get(address)
            if hop is not None:
                hops.add(hop)
            elif address not in own:
                self.problems.warn(
                    f"load balancer {address} ({peers.OPTION}) cannot be reached: there is no route to it"
                )
        return frozenset(Neighbour(hop.device, hop.address) for hop in hops if hop.device != "lo")
