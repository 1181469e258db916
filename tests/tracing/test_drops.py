"""`datapath drops` in a guest with kernel headers, of packets in namespaces.

    client 203.0.113.1 eth0 -- eth0 203.0.113.11 server, which is a backend of `web`
           2001:db8:2::1            2001:db8:2::11, and 2001:db8::10, the frontend of `web6`

What the server sends takes 20 ms.
"""

import json
import os
import site
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from datapath.sources.store import Store
from netns.topology import NetNS, veth

ROOT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
DELAY_US = 20_000
CLOSED_PORT = 9
DATAGRAMS = 7
SERVICES = [
    {"name": "web", "frontends": ["192.0.2.10:80/TCP"], "backends": ["203.0.113.11:8080"]},
    {"name": "web6", "frontends": ["[2001:db8::10]:80/TCP"], "backends": ["[2001:db8:2::99]:8080"]},
    {"name": "idle", "frontends": ["192.0.2.11:80/TCP"], "backends": ["203.0.113.12:8080"]},
]


@pytest.fixture(scope="module")
def namespaces():
    client, server = NetNS(), NetNS()
    veth(client, "eth0", server, "eth0")
    for namespace in (client, server):
        namespace.run("sysctl -qw net.ipv6.conf.all.accept_dad=0", check=False)
    for namespace, addresses in (
        (client, ("203.0.113.1/24", "2001:db8:2::1/64")),
        (server, ("203.0.113.11/24", "2001:db8:2::11/64", "2001:db8::10/128")),
    ):
        for address in addresses:
            namespace.run(f"ip address add {address} dev eth0" + (" nodad" if ":" in address else ""))
    client.run("ip route add 2001:db8::10/128 via 2001:db8:2::11")
    server.run(f"tc qdisc add dev eth0 root netem delay {DELAY_US // 1000}ms")
    yield client, server
    client.close()
    server.close()


def environment(root):
    # The system's Python has bcc; what the executor's artefact brings along is here in the tests' environment.
    paths = [str(ROOT / "executor"), *site.getsitepackages()]
    return {**os.environ, "PYTHONPATH": ":".join(paths), "DATAPATH_ROOT": str(root), "LC_ALL": "C.UTF-8"}


def drops(root, *arguments):
    command = [PYTHON, "-m", "datapath", "drops", *arguments]
    return subprocess.Popen(command, env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_counting(process):
    said = []
    for line in process.stderr:
        if line.startswith("counting for"):
            return
        said.append(line)
    raise AssertionError("".join(said) + process.stdout.read())


def listening(namespace, family, address, port):
    """Echo one connection."""
    with namespace:
        listener = socket.create_server((address, port), family=family)

    def serve():
        with listener, listener.accept()[0] as connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    threading.Thread(target=serve, daemon=True).start()


def connected(namespace, family, address, port):
    with namespace:
        connection = socket.socket(family)
    connection.settimeout(60)
    connection.connect((address, port))
    return connection


def exchange(connection, times=5):
    for _ in range(times):
        connection.sendall(b"ping")
        assert connection.recv(4096)


def provoke(client, server):
    listening(server, socket.AF_INET, "203.0.113.11", 8080)
    listening(server, socket.AF_INET6, "2001:db8::10", 80)
    listening(client, socket.AF_INET, "127.0.0.1", 7777)
    web = connected(client, socket.AF_INET, "203.0.113.11", 8080)
    web6 = connected(client, socket.AF_INET6, "2001:db8::10", 80)
    local = connected(client, socket.AF_INET, "127.0.0.1", 7777)
    for each in (web, web6, local):
        exchange(each)
    # For a while, everything that the client sends on eth0 is lost.
    client.run("tc qdisc add dev eth0 root netem loss 100%")
    web.sendall(b"lost")
    time.sleep(1)
    client.run("tc qdisc del dev eth0 root")
    assert web.recv(4096) == b"lost"
    with client, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for _ in range(DATAGRAMS):
            datagrams.sendto(b"nobody", ("203.0.113.11", CLOSED_PORT))
    for each in (web, web6, local):
        each.close()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    made = tmp_path_factory.mktemp("node")
    (made / "var/lib/datapath").mkdir(parents=True)
    Store(made / "var/lib/datapath/desired.json").save({"services": {"items": SERVICES, "purge": True}})
    return made


@pytest.fixture(scope="module")
def counted(namespaces, root):
    """JSON documents of `--watch`, one an interval; the first one or two may be from before."""
    process = drops(root, "--watch", "--seconds", "3", "-o", "json")
    wait_until_counting(process)
    provoke(*namespaces)
    documents = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.terminate()
    rest, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    documents += [json.loads(line) for line in rest.splitlines()]
    return documents


def row(counted, service):
    return next(each for each in counted[-1]["tcp"] if each["service"] == service)


def test_reason_of_a_closed_port(counted):
    found = [each for each in counted[-1]["drops"] if each["reason"] == "NO_SOCKET" and each["protocol"] == "IPv4"]
    assert sum(each["packets"] for each in found) >= DATAGRAMS
    assert any("udp" in each["location"] for each in found)


def test_retransmits_belong_to_the_service_that_lost_packets(counted):
    assert row(counted, "web")["retransmits"] >= 1
    assert row(counted, "web6")["retransmits"] == 0
    assert row(counted, None)["retransmits"] == 0


@pytest.mark.parametrize("service", ["web", "web6"])
def test_round_trip_time_of_a_service(counted, service):
    times = row(counted, service)
    assert times["samples"] >= 5
    assert DELAY_US <= times["min_us"] <= times["mean_us"] <= times["max_us"] < 100 * DELAY_US


def test_connections_of_no_service(counted):
    assert row(counted, None)["samples"] >= 5
    assert row(counted, None)["min_us"] < DELAY_US


def test_service_without_connections(counted):
    idle = row(counted, "idle")
    assert (idle["retransmits"], idle["samples"]) == (0, 0)
    assert idle["mean_us"] is idle["min_us"] is idle["max_us"] is None


def test_watching_counts_on(counted):
    assert len(counted) >= 2
    seconds = [each["seconds"] for each in counted]
    assert seconds == sorted(set(seconds))
    samples = [sum(each["samples"] for each in one["tcp"]) for one in counted]
    assert samples == sorted(samples)
