"""Health checks by a real agent of real web servers."""

import signal
import time

from datapath.agent.core import FEW
from integration.node import BACKENDS, VIP, answers, document, get, service, web_server, web_servers
from netns.topology import wait_for

CHECK = {"type": "http", "path": "/healthz", "interval": "200ms", "timeout": "200ms", "rise": 2, "fall": 3}


def health(node, address):
    return node.backend_row(address)["health"]


def test_a_backend_leaves_the_table_and_returns(agent):
    with web_servers(agent.backend, *BACKENDS[:2]) as (_, second):
        agent.apply(document(service(health_check=CHECK)))
        wait_for(lambda: answers(agent.client, VIP) == set(BACKENDS[:2]), what="both backends")
        second.status = 503
        wait_for(lambda: health(agent, BACKENDS[1]) == "unhealthy", 15, "the failure's detection")
        row = agent.backend_row(BACKENDS[1])
        assert (row["state"], row["in_table"], row["reason"]) == ("quarantined", False, "status 503")
        assert answers(agent.client, VIP) == {BACKENDS[0]}
        shares = agent.ask("maglev", f"{VIP}:80")["shares"]
        assert [share["share"] for share in shares] == [1.0, 0.0]
        assert agent.ask("status")["backends"] == {"total": 2, "healthy": 1}
        second.status = 200
        wait_for(lambda: health(agent, BACKENDS[1]) == "healthy", 15, "the return's detection")
        wait_for(lambda: answers(agent.client, VIP) == set(BACKENDS[:2]), what="both backends")
    assert agent.ask("verify")["drift_count"] == 0


def test_only_the_service_concerned_is_written(agent):
    """Of many services one changes health: its two entries, its table, and one that voids answers."""
    others = [
        {"name": f"other{number}", "frontends": [f"{VIP}:{1000 + number}/TCP"], "backends": [f"{BACKENDS[0]}:9000"]}
        for number in range(20)
    ]
    with web_servers(agent.backend, *BACKENDS[:2]) as (_, second):
        agent.apply(document(service(health_check=CHECK), *others))
        second.status = 503
        wait_for(lambda: agent.ask("status")["backends"]["healthy"] < 22, 15, "the failure's detection")
        done = agent.ask("status")["last_apply"]
    assert done["operations"] <= 3
    assert done["map_writes"] <= 5
    assert agent.ask("verify")["drift_count"] == 0


def test_established_connections_to_healthy_backends_stay(agent):
    import http.client

    with web_servers(agent.backend, *BACKENDS[:2]) as (first, _):
        agent.apply(document(service(health_check=CHECK)))
        wait_for(lambda: answers(agent.client, VIP) == set(BACKENDS[:2]), what="both backends")
        connections = {}
        while set(connections) != set(BACKENDS[:2]):
            with agent.client:
                connection = http.client.HTTPConnection(VIP, 80, timeout=5)
                connection.connect()
            connection.request("GET", "/")
            connections[connection.getresponse().read().decode()] = connection
        first.status = 503
        wait_for(lambda: health(agent, BACKENDS[0]) == "unhealthy", 15, "the failure's detection")
        # The unhealthy one's flow stays as well: it is quarantined for new flows only.
        for address, connection in connections.items():
            connection.request("GET", "/")
            assert connection.getresponse().read().decode() == address
            connection.close()


def test_all_failed(agent):
    """Closed: refused at once, as a service without backends. Open: everybody serves as if healthy."""
    with web_server(agent.backend, BACKENDS[0]) as only:
        only.status = 503
        agent.apply(document(service(backends=BACKENDS[:1], health_check=CHECK)))
        wait_for(lambda: health(agent, BACKENDS[0]) == "unhealthy", 15, "the failure's detection")
        started = time.monotonic()
        wait_for(lambda: _refused(agent), what="a refusal")
        assert time.monotonic() - started < 4
        assert agent.ask("status")["services"] == {"total": 1, "healthy": 0}
        agent.apply(document(service(backends=BACKENDS[:1], health_check={**CHECK, "all_failed": "open"})))
        assert answers(agent.client, VIP, 5) == {BACKENDS[0]}
        assert health(agent, BACKENDS[0]) == "unhealthy"


def _refused(node):
    try:
        get(node.client, VIP, timeout=2)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def test_a_restart_does_not_put_an_unhealthy_backend_back(agent):
    with web_servers(agent.backend, *BACKENDS[:2]) as (_, second):
        second.status = 503
        agent.apply(document(service(health_check=CHECK)))
        wait_for(lambda: health(agent, BACKENDS[1]) == "unhealthy", 15, "the failure's detection")
        tables = agent.dump("luts_v1")
        for number in (signal.SIGKILL, signal.SIGTERM):
            agent.stop(number)
            agent.start()
            assert health(agent, BACKENDS[1]) == "unhealthy"
            assert agent.ask("status")["last_apply"] is None
            assert agent.dump("luts_v1") == tables
            assert answers(agent.client, VIP) == {BACKENDS[0]}
        second.status = 200
        wait_for(lambda: health(agent, BACKENDS[1]) == "healthy", 15, "the return's detection")


def test_a_dry_run_beside_no_agent_knows_the_health(agent):
    with web_server(agent.backend, BACKENDS[0]):
        wanted = document(service(health_check=CHECK))
        agent.apply(wanted)
        wait_for(lambda: health(agent, BACKENDS[1]) == "unhealthy", 15, "the failure's detection")
        agent.stop()
        assert agent.check(wanted)["changed"] is False
        assert agent.ask("verify")["drift_count"] == 0


def test_checks_that_are_taken_away_end(agent):
    with web_server(agent.backend, BACKENDS[0]):
        agent.apply(document(service(health_check=CHECK)))
        wait_for(lambda: health(agent, BACKENDS[1]) == "unhealthy", 15, "the failure's detection")
        agent.apply(document(service()))
        row = agent.backend_row(BACKENDS[1])
        assert (row["health"], row["state"], row["in_table"]) == ("unchecked", "active", True)
        agent.apply(document(service(health_check={**CHECK, "interval": "9s"})))
        assert health(agent, BACKENDS[1]) == "healthy"


def test_a_backend_of_many_services_fails(agent):
    """More services than are updated one by one: all of them in few plans."""
    check = {"type": "tcp", "interval": "500ms", "timeout": "200ms", "fall": 2}
    many = [
        {
            "name": f"many{number}",
            "frontends": [f"{VIP}:{1000 + number}/TCP"],
            "backends": [f"{BACKENDS[0]}:8080", f"{BACKENDS[1]}:8080"],
            "health_check": check,
        }
        for number in range(FEW + 6)
    ]
    with web_server(agent.backend, BACKENDS[0]):
        agent.apply(document(*many, maglev_table_size=251))
        wait_for(lambda: agent.ask("status")["backends"]["healthy"] == len(many), 30, "the failure's detection")
        assert answers(agent.client, VIP, 3, port=1000) == {BACKENDS[0]}
    assert agent.ask("verify")["drift_count"] == 0
