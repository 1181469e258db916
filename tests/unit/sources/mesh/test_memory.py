import ipaddress
import sqlite3

import pytest

from datapath.sources.mesh.memory import MeshMemory
from datapath.state.remote import Port, RemoteService, ServiceName


def service(cluster="c2", name="web", number=1):
    places = {ipaddress.ip_address(f"10.0.1.{number}"): {"http": Port("TCP", 80)}}
    return RemoteService(cluster, 2, ServiceName("default", name), {}, places, True)


@pytest.fixture
def memory(tmp_path):
    return MeshMemory(tmp_path / "state/clustermesh.db")


def saved(memory, *services):
    changes = {}
    for each in services:
        changes.setdefault(each.cluster, {})[each.name] = each
    memory.save(changes)


def test_nothing_was_saved(memory):
    assert memory.load() == {}
    assert not memory.path.parent.exists()


def test_what_is_saved_is_loaded(memory):
    web, dns, other = service(), service(name="dns"), service("c3")
    saved(memory, web, dns, other)
    saved(memory, service(number=9))
    wanted = {"c2": {web.name: service(number=9), dns.name: dns}, "c3": {other.name: other}}
    assert memory.load() == wanted
    assert MeshMemory(memory.path).load() == wanted


def test_what_is_gone_is_forgotten(memory):
    saved(memory, service(), service(name="dns"), service("c3"))
    memory.save({"c2": {ServiceName("default", "web"): None, ServiceName("default", "none"): None}})
    assert {cluster: len(known) for cluster, known in memory.load().items()} == {"c2": 1, "c3": 1}
    memory.keep({"c3"})
    assert memory.load().keys() == {"c3"}
    memory.remove()
    assert memory.load() == {}
    memory.keep(())


@pytest.mark.parametrize("contents", [b"", b"nonsense", b"SQLite format 3\0" + bytes(5000)])
def test_an_unreadable_file_is_no_reason_to_stop(memory, contents):
    memory.path.parent.mkdir()
    memory.path.write_bytes(contents)
    assert memory.load() == {}


def test_a_value_that_this_version_refuses(memory):
    saved(memory, service())
    with sqlite3.connect(memory.path) as database:
        database.execute("UPDATE services SET value = x'7b'")
    database.close()
    assert memory.load() == {}


def test_loading_writes_nothing(memory):
    saved(memory, service())
    before = {path: path.stat().st_mtime_ns for path in memory.path.parent.iterdir()}
    memory.load()
    assert {path: path.stat().st_mtime_ns for path in memory.path.parent.iterdir()} == before
