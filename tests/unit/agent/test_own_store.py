"""What is told of this cluster's own store."""

from types import SimpleNamespace

import pytest

from datapath.agent.own_store import _hints
from datapath.cli import own_store as shown
from datapath.etcd.writes import Condition
from datapath.sources.mesh.publisher import PublisherStatus
from datapath.spec.fields import Violations
from datapath.spec.store import parse_store

FILES = {"ca": "/ca.pem", "certificate": "/agent.pem", "key": "/agent.key"}
STORE = {"endpoints": ["https://192.0.2.21:2379"], **FILES, "node": {"addresses": ["192.0.2.11"]}}
FINE = {"version": "3.4.23", "size": 10, "size_in_use": 5, "quota": None, "has_leader": True, "alarms": ()}
ROW = {
    "endpoint": "192.0.2.21:2379",
    "ready": False,
    "connected": True,
    "since": 0.0,
    "publisher": "lb1",
    "elected": False,
    "services": 12000,
    "nodes": 3,
    "identities": 0,
    "ips": None,
    "lease": {"ttl": 900, "id": "1", "renewed": None},
    "size": 3 << 20,
    "quota": 2 << 30,
    "alarms": ["NOSPACE"],
    "certificate_expires": None,
    "failure": {"stage": "store", "message": "the store is full (NOSPACE)", "when": 0.0, "hint": None},
    "hints": ["compact it"],
}


def hints(quota=None, oversized=None, foreign=0, **condition):
    store = parse_store(Violations("clustermesh"), "store", STORE)
    status = PublisherStatus(node="lb1", connected=True, condition=Condition(**{**FINE, **condition}), quota=quota)
    status.foreign = foreign
    keeper = SimpleNamespace(contested=None)
    publisher = SimpleNamespace(election=SimpleNamespace(publisher="lb1"), of_node=keeper, of_cluster=keeper)
    return list(_hints(store, publisher, status, oversized or {}))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, None),
        ({"quota": 100, "size": 80}, None),
        ({"quota": 100, "size": 81}, "the store has 81 % of what it may have"),
        ({"alarms": ("NOSPACE",)}, "NOSPACE: the store is full"),
        ({"alarms": ("CORRUPT",)}, "CORRUPT: members of the store disagree"),
        ({"alarms": ("number 9",)}, "number 9: an alarm of etcd"),
        ({"has_leader": False}, "the store has no leader"),
        ({"foreign": 2}, "2 keys among this cluster's services are somebody else's"),
        ({"oversized": {"a/b": 9}}, "service a/b is not published: 9 bytes"),
    ],
)
def test_hints(said, words):
    found = hints(**said)
    assert found == [] if words is None else (len(found) == 1 and words in found[0])


def test_a_store_in_a_table():
    table, troubles = shown.sections(ROW)
    row = table.splitlines()[1].split("  ")
    cells = [each.strip() for each in row if each.strip()]
    assert cells[:2] == ["192.0.2.21:2379", "connected"]
    assert cells[3:] == ["lb1", "12,000", "3", "0", "-", "15m, renewed -", "3.0 of 2048 MiB", "NOSPACE", "-"]
    assert [line for line in troubles.splitlines() if "NOSPACE" in line]
    assert "store: hint: compact it" in troubles
    assert list(shown.sections(None)) == []
