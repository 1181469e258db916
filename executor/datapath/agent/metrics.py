"""Prometheus metrics, made from the kernel's maps when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datapath import __version__
from datapath.agent import clustermesh, views
from datapath.agent.core import Agent
from datapath.agent.own_store import own_store
from datapath.sources.mesh.kinds import KINDS
from datapath.state.kernel_state import KernelState
from datapath.state.model import DesiredState

_OF_CLUSTERS = {
    "connected": "1 while there is a connection to the cluster's store.",
    "ready": "1 while everything that the cluster publishes has been read.",
    **{kind.name: f"{kind.name.capitalize()} of the cluster that are known." for kind in KINDS},
    "quarantined_count": "Values of the cluster that are not used.",
    "failures": "Attempts in a row that failed.",
    "heartbeat": "When the cluster last said that it is there, in seconds since the epoch.",
    "certificate_expires": "When this node's certificate for the cluster's store expires, in seconds since the epoch.",
    "server_certificate_expires": "When the certificate of the cluster's store expires, in seconds since the epoch.",
}
"""Key of `datapath clustermesh status` -> what it tells."""


_OF_STORE = {
    "connected": "1 while there is a connection to this cluster's own store.",
    "ready": "1 while everything that this node publishes is there, and some node publishes for the cluster.",
    "elected": "1 while this node publishes for the cluster.",
    **{kind.name: f"{kind.name.capitalize()} that are published for the cluster." for kind in KINDS},
    "foreign": "Keys of somebody else among those of the cluster's services.",
    "failures": "Attempts in a row that failed.",
    "size": "Bytes of the store's database.",
    "quota": "Bytes that the store's database may have.",
    "certificate_expires": "When this node's certificate for the store expires, in seconds since the epoch.",
    "server_certificate_expires": "When the store's certificate expires, in seconds since the epoch.",
}
"""Key of `store` in `datapath clustermesh status` -> what it tells."""


class Metrics:
    """Renders the metrics of one agent."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, agent: Agent) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Datapath(agent))
        ProcessCollector(registry=self._registry)

    def render(self) -> str:
        """The metrics in Prometheus' text format; reads the kernel, so it may block."""
        return generate_latest(self._registry).decode()


class _Datapath(Collector):
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def describe(self) -> list[Metric]:
        """Nothing in advance: the registry would collect once only to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        return iter(self._agent.turns.glance(lambda: list(self._families())))

    def _families(self) -> Iterator[Metric]:
        have = self._agent.kernel.read_without_tables()
        yield from self._own()
        yield from self._outcomes()
        yield from self._services(have)
        yield from self._clusters()
        yield from self._store()
        yield from self._kernel(have)

    def _own(self) -> Iterator[Metric]:
        agent, done = self._agent, self._agent.last_done
        info = GaugeMetricFamily("datapath_build_info", "Always 1; the version is a label.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
        yield _gauge(
            "datapath_converged", "1 when the kernel held the desired state when last compared.", agent.converged
        )
        yield _gauge("datapath_drift", "Differences that the last comparison found.", agent.drift_count or 0)
        yield _gauge(
            "datapath_plan_seconds", "Duration of the last comparison of kernel and desired state.", agent.plan_seconds
        )
        if done is not None:
            yield _gauge("datapath_last_apply_timestamp_seconds", "When the kernel was last changed.", done.when)
            yield _gauge("datapath_last_apply_seconds", "How long the last change of the kernel took.", done.seconds)
            yield _gauge(
                "datapath_last_apply_operations", "Operations of the last change of the kernel.", done.operations
            )
        yield _counter(
            "datapath_map_writes", "Map update and delete system calls of this daemon.", agent.kernel.map_writes
        )
        if agent.last_trouble is not None:
            yield _gauge(
                "datapath_last_error_timestamp_seconds", "When something last failed.", agent.last_trouble.when
            )

    def _outcomes(self) -> Iterator[Metric]:
        yield from _by_outcome("datapath", "by outcome.", views.outcomes(self._agent))
        what = "by outcome, of this node as a backend with direct server return."
        yield from _by_outcome("datapath_node", what, views.node_outcomes(self._agent))
        what = "by outcome, of the bandwidth manager."
        yield from _by_outcome("datapath_bandwidth", what, views.bandwidth_outcomes(self._agent))

    def _services(self, have: KernelState) -> Iterator[Metric]:
        labels = ["service", "protocol"]
        service_packets = CounterMetricFamily(
            "datapath_service_packets", "Packets to a service's backends.", labels=labels
        )
        service_bytes = CounterMetricFamily("datapath_service_bytes", "Bytes to a service's backends.", labels=labels)
        labels = ["service", "backend"]
        packets = CounterMetricFamily("datapath_backend_packets", "Packets to a backend.", labels=labels)
        size = CounterMetricFamily("datapath_backend_bytes", "Bytes to a backend.", labels=labels)
        healthy = GaugeMetricFamily(
            "datapath_backend_healthy", "1 unless the backend fails its health check.", labels=labels
        )
        in_table = GaugeMetricFamily(
            "datapath_backend_in_table", "1 when new flows may go to the backend.", labels=labels
        )
        desired = self._agent.desired or DesiredState()
        for service in views.service_rows(self._agent, have, desired.services):
            for protocol, numbers in service["traffic"].items():
                service_packets.add_metric([service["name"], protocol], numbers["packets"])
                service_bytes.add_metric([service["name"], protocol], numbers["bytes"])
            for backend in service["backends"]:
                where = [service["name"], backend["backend"]]
                packets.add_metric(where, backend["packets"])
                size.add_metric(where, backend["bytes"])
                healthy.add_metric(where, backend["health"] != "unhealthy")
                in_table.add_metric(where, backend["in_table"])
        yield from (service_packets, service_bytes, packets, size, healthy, in_table)

    def _clusters(self) -> Iterator[Metric]:
        """Of each other cluster; nothing where there is none."""
        rows = clustermesh.others(self._agent)
        for name, text in _OF_CLUSTERS.items():
            family = GaugeMetricFamily(f"datapath_clustermesh_{name}", text, labels=["cluster"])
            for row in rows:
                if row[name] is not None:
                    family.add_metric([row["name"]], row[name])
            if family.samples:
                yield family
        text = "1 while everything of a kind that the cluster publishes has been read."
        synced = GaugeMetricFamily("datapath_clustermesh_synced", text, labels=["cluster", "kind"])
        for row in rows:
            for kind, done in row["synced"].items():
                synced.add_metric([row["name"], kind], done)
        if synced.samples:
            yield synced

    def _store(self) -> Iterator[Metric]:
        """Of this cluster's own store; nothing where this node publishes nothing."""
        store = own_store(self._agent)
        if store is None:
            return
        for name, text in _OF_STORE.items():
            if store[name] is not None:
                yield _gauge(f"datapath_clustermesh_store_{name}", text, store[name])
        alarms = GaugeMetricFamily(
            "datapath_clustermesh_store_alarm", "1 while the store has the alarm.", labels=["alarm"]
        )
        for alarm in ("NOSPACE", "CORRUPT"):
            alarms.add_metric([alarm], alarm in store["alarms"])
        yield alarms

    def _kernel(self, have: KernelState) -> Iterator[Metric]:
        sizes = GaugeMetricFamily("datapath_map_size", "Entries that a map can hold.", labels=["map"])
        entries = GaugeMetricFamily("datapath_map_entries", "Entries that a map holds.", labels=["map"])
        for row in views.maps(have):
            sizes.add_metric([row["name"]], row["size"])
            if row["entries"] is not None:
                entries.add_metric([row["name"]], row["entries"])
        attached = GaugeMetricFamily(
            "datapath_device_attached", "1 when our program sees the device's packets.", labels=["device", "mode"]
        )
        for name, device in views.devices(have, {}).items():
            attached.add_metric([name, device["mode"] or ""], bool(device["mode"]) and not device["problem"])
        yield from (sizes, entries, attached)


def _by_outcome(prefix: str, what: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[Metric]:
    packets = CounterMetricFamily(f"{prefix}_packets", f"Packets {what}", labels=["outcome", "verdict"])
    size = CounterMetricFamily(f"{prefix}_bytes", f"Bytes {what}", labels=["outcome", "verdict"])
    for row in rows:
        packets.add_metric([row["name"], row["verdict"]], row["packets"])
        size.add_metric([row["name"], row["verdict"]], row["bytes"])
    yield from (packets, size)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=float(value))
