"""`datapath trace`: through the agent and without it; what it says is what the next request meets."""

import http.client
import re

import pytest

from integration.node import BACKENDS, BACKENDS6, VIP, VIP6, document, service, web_servers

CLIENT, CLIENT6 = "198.51.100.2", "2001:db8:1::2"
MAPS = ("flows_tcp_v1", "flows_any_v1", "outcomes_v1", "service_stats_v1", "backend_stats_v1", "answer_budget_v1")


def both_families():
    return document(
        service(),
        {"name": "web6", "frontends": [f"[{VIP6}]:80/TCP"], "backends": [f"[{each}]:8080" for each in BACKENDS6[:2]]},
    )


def end(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def request(node, vip, client, port):
    """A real request from this source port; the address of the backend that answered."""
    with node.client:
        connection = http.client.HTTPConnection(vip, 80, timeout=3, source_address=(client, port))
        connection.request("GET", "/")
        answer = connection.getresponse().read().decode()
        connection.close()
    return answer


@pytest.mark.parametrize(("vip", "client", "backends"), [(VIP, CLIENT, BACKENDS), (VIP6, CLIENT6, BACKENDS6)])
def test_requests_reach_what_was_told(agent, vip, client, backends):
    agent.apply(both_families())
    told = {}
    with web_servers(agent.backend, *backends[:2]):
        for port in range(20000, 20006):
            traced = agent.ask("trace", end(client, port), f"{end(vip, 80)}/TCP")
            told[port] = traced["backend"]["backend"], traced["disagreements"]
        met = {port: (end(request(agent, vip, client, port), 8080), []) for port in told}
    assert told == met


def test_nobody_notices(agent):
    agent.apply(both_families())
    with web_servers(agent.backend, *BACKENDS[:2]):
        request(agent, VIP, CLIENT, 20000)
    # What the namespaces say to each other by themselves would be counted.
    for namespace in (agent.client, agent.backend):
        for device in ("all", "eth0"):
            namespace.run(f"sysctl -qw net.ipv6.conf.{device}.disable_ipv6=1")
    before = {name: agent.dump(name) for name in MAPS}
    outcomes = [
        agent.ask("trace", *words)["outcome"]
        for words in (
            (f"{CLIENT}:20000", f"{VIP}:80/TCP", "--tcp-flags", "A"),
            (f"{CLIENT}:20001", f"{VIP}:80/TCP"),
            (f"{CLIENT}:20001", f"{VIP}:80/TCP", "--ttl", "1"),
            (f"{CLIENT}:20001", f"{VIP}:80/UDP"),
            (f"{CLIENT}:20001", "203.0.113.99:80/TCP"),
            (f"{BACKENDS[0]}:8080", "198.51.100.1:20000/TCP"),
        )
    ]
    assert {name: agent.dump(name) for name in MAPS} == before
    assert outcomes[:5] == [
        "request_forwarded",
        "request_new_flow",
        "ttl_expired_answered",
        "unknown_port_dropped",
        "no_service_passed",
    ]
    assert agent.ask("verify")["drift_count"] == 0


def test_agent_and_command_line_tell_the_same(agent):
    agent.apply(document(service()))
    words = ("trace", f"{CLIENT}:20000", f"{VIP}:80/TCP")
    with_agent = agent.ask(*words)
    agent.stop()
    without = agent.ask(*words)
    for told in (with_agent, without):
        # Resolved meanwhile or not, that is the network's business.
        del told["next_hop"], told["verdict"], told["action"], told["outcome"], told["sentence"], told["after"]
    assert without == with_agent


def test_text(agent):
    agent.apply(document(service()))
    text = agent.run("trace", f"{CLIENT}:20000", f"{VIP}:80/TCP").stdout
    assert re.search(r"^service +web  192\.0\.2\.10:80/TCP, maglev, 2 backends$", text, re.MULTILINE)


def test_no_load_balancer(node):
    error = node.ask("trace", f"{CLIENT}:20000", f"{VIP}:80/TCP", code=2)["errors"][0]
    assert error["message"] == "no load balancer is loaded on this node"


@pytest.mark.parametrize(
    ("words", "path", "nearest"),
    [
        ((f"{CLIENT}:1", f"{VIP}:80/TCP", "--device", "client1"), "--device", "client0"),
        ((f"{CLIENT}:1", f"{VIP}:80/TCP", "--tcp-flags", "X"), "--tcp-flags", None),
        ((f"[{CLIENT6}]:1", f"{VIP}:80/TCP"), "source", None),
        ((f"{CLIENT}:1", f"{VIP}:80/TPC"), "destination", "TCP"),
    ],
)
def test_bad_input(agent, words, path, nearest):
    agent.apply(document(service()))
    (error,) = agent.ask("trace", *words, code=2)["errors"]
    assert (error["path"], error["nearest"]) == (path, nearest)
