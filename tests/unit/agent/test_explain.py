"""Explanations from evidence, above all from evidence that contradicts itself, which no healthy kernel gives."""

import dataclasses
import ipaddress
import struct

import pytest

from datapath.agent import explain, frames, tables
from datapath.agent.evidence import REPLY, REQUEST, Evidence, expected_slot, flow_key
from datapath.agent.frames import Packet
from datapath.compile import layouts
from datapath.compile.layouts import pack_address
from datapath.compile.outcomes import OUTCOMES
from datapath.state.model import BackendState, Frontend, Protocol

HZ = 250
NOW = 10_000_000
SIZE = 251
CLIENT, VIP, SNAT = (ipaddress.ip_address(each) for each in ("198.51.100.2", "192.0.2.10", "10.0.1.1"))
BACKEND, OTHER = (ipaddress.ip_address(each) for each in ("10.0.1.11", "10.0.1.12"))
PACKET = Packet(CLIENT, 20000, VIP, 80, Protocol.TCP)
MACS = ("02:00:00:00:00:02", "02:00:00:00:00:01")


def address(value):
    return layouts.Address(*pack_address(value))


def row(number, at, state=BackendState.ACTIVE, lut_id=1):
    return tables.BackendRow(number, at, 8080, Protocol.TCP, state, lut_id)


def config(**more):
    values = {"snat_port_min": 1024, "snat_port_max": 29999, "maglev_table_size": SIZE, "hash_seed4": 0x71DCDA46}
    values.update(tcp_established_timeout=8000 * HZ, tcp_closing_timeout=10 * HZ, any_timeout=60 * HZ)
    return layouts.Config(snat_address4=address(SNAT), **{**values, **more})


def flow(at=BACKEND, number=1, port=20000, **more):
    value = layouts.FlowValue(
        new_source=address(SNAT), new_source_port=port, new_destination=address(at), new_destination_port=8080,
        backend_id=number, lut_id=1, last_seen=NOW, **more,
    )  # fmt: skip
    return bytes(value)


KEY = flow_key(PACKET, REQUEST)


def output(at=BACKEND, port=20000):
    return frames.build(
        dataclasses.replace(PACKET, source=SNAT, source_port=port, destination=at, destination_port=8080), *MACS
    )


def evidence(outcome, **more):
    frontend = Frontend(VIP, 80, Protocol.TCP)
    values = {
        "packet": PACKET,
        "frame": frames.build(PACKET, *MACS),
        "action": "XDP_REDIRECT",
        "outcome": next(each for each in OUTCOMES if each.name == outcome),
        "output": output(),
        "before": {},
        "after": {KEY: flow()},
        "config": config(),
        "service": tables.FrontendRow(frontend, 1, 2, 2),
        "name": "web",
        "table": struct.pack("=I", 1) * SIZE,
        "backends": {1: row(1, BACKEND), 2: row(2, OTHER)},
        "ports": (),
        "now": NOW,
        "hz": HZ,
    }
    return Evidence(**{**values, **more})


def test_a_new_flow():
    told = explain.explain(evidence("request_new_flow"))
    assert told["disagreements"] == []
    assert told["backend"] == {"backend": "10.0.1.11:8080", "id": 1, "state": "active"}
    assert told["service"]["name"] == "web"
    assert told["slot"]["backend"] == "10.0.1.11:8080"
    assert (told["before"]["destination"], told["after"]["destination"]) == ("192.0.2.10", "10.0.1.11")


def test_the_slot_is_the_published_vectors():
    packet = dataclasses.replace(PACKET, source=ipaddress.ip_address("192.168.1.10"), source_port=40000)
    assert expected_slot(packet, config()) == 7


@pytest.mark.parametrize(
    ("outcome", "more", "message"),
    [
        ("request_new_flow", {"table": struct.pack("=I", 2) * SIZE}, "holds 10.0.1.12:8080 (id 2)"),
        ("request_new_flow", {"table": bytes(4 * SIZE)}, "holds nobody (id 0)"),
        ("request_new_flow", {"table": struct.pack("=I", 1) * 13}, "but the table has 13"),
        ("request_new_flow", {"action": "XDP_PASS"}, "but the program returned XDP_PASS"),
        ("request_new_flow", {"output": output(OTHER)}, "not translated as its flow record says"),
        ("request_new_flow", {"output": output()[:-1] + b"\1"}, "wrong checksum"),
        ("request_new_flow", {"after": {}}, "there is no flow record of it"),
        ("reply_forwarded", {}, "does not fit the flow records"),
    ],
    ids=range(8),
)
def test_contradictions_are_told(outcome, more, message):
    told = explain.explain(evidence(outcome, **more))["disagreements"]
    assert any(message in each for each in told), told


def test_a_random_choice_outside_the_table_is_told():
    service = tables.FrontendRow(Frontend(VIP, 80, Protocol.TCP), 1, 2, 1)
    inside = explain.explain(evidence("request_new_flow", service=service))
    assert (inside["slot"], inside["disagreements"]) == (None, [])
    (lie,) = explain.explain(evidence("request_new_flow", service=service, table=bytes(4 * SIZE)))["disagreements"]
    assert "which is in no slot of the table" in lie


@pytest.mark.parametrize(
    ("outcome", "old", "more", "reason"),
    [
        ("request_reselected", flow(OTHER, 2), {"backends": {1: row(1, BACKEND)}}, "10.0.1.12:8080 is gone"),
        ("request_reselected", flow(OTHER, 1), {}, "10.0.1.12:8080 is gone"),
        (
            "request_reselected",
            flow(OTHER, 2),
            {"backends": {1: row(1, BACKEND), 2: row(2, OTHER, lut_id=9)}},
            "10.0.1.12:8080 is gone",
        ),
        (
            "request_reselected",
            flow(OTHER, 2),
            {"backends": {1: row(1, BACKEND), 2: row(2, OTHER, BackendState.MAINTENANCE)}},
            "is maintenance and this SYN opens",
        ),
        ("request_reselected", flow(), {}, "its source port 20000 belongs to another flow"),
        ("request_new_flow", flow(state=2), {}, "the connection is over"),
        ("request_new_flow", flow(), {"now": NOW + 100 * HZ}, "older than the 60 s"),
        ("request_new_flow", flow(state=2), {"now": NOW + 100 * HZ}, "older than the 10 s"),
        ("request_new_flow", flow(state=1), {"now": NOW + 9000 * HZ}, "older than the 8000 s"),
    ],
    ids=range(9),
)
def test_why_a_record_was_not_used(outcome, old, more, reason):
    told = explain.explain(evidence(outcome, before={KEY: old}, **more))
    assert told["disagreements"] == []
    assert reason in told["why"][0]


def test_what_the_table_would_do_with_a_known_flow():
    told = explain.explain(evidence("request_forwarded", before={KEY: flow()}, table=struct.pack("=I", 2) * SIZE))
    assert told["disagreements"] == []
    assert told["why"][1].startswith("a new flow of this client would go to 10.0.1.12:8080")


def test_who_has_the_port():
    taken = layouts.FlowKey(
        source=address(BACKEND), source_port=8080, destination=address(SNAT), destination_port=20000, protocol=6,
        direction=REPLY,
    )  # fmt: skip
    holder = layouts.FlowValue(new_destination=address(ipaddress.ip_address("203.0.113.7")), new_destination_port=20000)
    told = explain.explain(
        evidence(
            "request_new_flow",
            before={bytes(taken): bytes(holder)},
            after={KEY: flow(port=5000)},
            output=output(port=5000),
        )
    )
    assert told["snat"] == {
        "source": "10.0.1.1:5000",
        "how": "allocated",
        "reason": "the client's port is taken towards this backend by 203.0.113.7:20000",
    }


@pytest.mark.parametrize(
    ("table", "backends", "reason"),
    [
        (b"", {}, "the service has no table"),
        (bytes(4 * SIZE), {}, "of the table holds no backend"),
        (struct.pack("=I", 2) * SIZE, {2: row(2, OTHER, lut_id=9)}, "which belongs to another service"),
    ],
    ids=range(3),
)
def test_why_there_is_no_backend(table, backends, reason):
    told = explain.explain(evidence("no_backend_dropped", action="XDP_DROP", after={}, table=table, backends=backends))
    assert (told["backend"], told["after"], told["disagreements"]) == (None, None, [])
    assert reason in told["why"][0]


def test_a_node_without_an_address_of_the_family():
    none = config()
    none.snat_address4[:] = bytes(16)
    told = explain.explain(evidence("no_snat_port_dropped", action="XDP_DROP", after={}, config=none))
    assert told["why"] == ["this node has no source address for IPv4 (direct-routing-device)"]


def test_many_frontends_are_cut():
    ports = tuple(f"192.0.2.10:{number}/TCP" for number in range(1, 40))
    told = explain.explain(
        evidence("unknown_port_dropped", action="XDP_DROP", after={}, service=None, table=b"", ports=ports)
    )
    assert told["why"][0].endswith("192.0.2.10:10/TCP, ...")
