"""Reset, with and without an agent, leaves nothing behind."""

from integration.node import BACKENDS, document, service, web_server
from netns.topology import wait_for

CHECK = {"type": "tcp", "interval": "100ms", "timeout": "50ms", "fall": 1}
KEPT = {"var", "var/lib", "var/lib/datapath", "run", "run/datapath", "sys", "sys/fs", "sys/fs/bpf"}


def left(node):
    """Names under the node's root that a reset may not leave."""
    passing = ("notify", "log", "writer.lock", "datapathd.sock", "maps.debug", "progs.debug")
    names = {str(path.relative_to(node.root)) for path in node.root.rglob("*") if path.name not in passing}
    return names - KEPT


def kernel_state(node):
    neighbours = [line for line in node.lb.run("ip neigh show").splitlines() if "proto 218" in line]
    sysctls = node.lb.run("sysctl -a", check=False).splitlines()
    forwarding = [line for line in sysctls if line.startswith("net.") and ("forwarding" in line or "accept_ra" in line)]
    return {"neighbours": neighbours, "forwarding": forwarding}


def test_reset_with_an_agent(agent):
    before = kernel_state(agent)
    with web_server(agent.backend, BACKENDS[0]):
        agent.apply(document(service(health_check=CHECK)))
        assert kernel_state(agent) != before
        wait_for(lambda: agent.ask("status")["backends"]["healthy"] == 1, 15, "the failure's detection")
    done = agent.ask("reset", "--yes")
    assert done["changed"] is True
    assert "load balancer on client0" in done["removed"]
    assert kernel_state(agent) == before
    assert left(agent) == set()
    assert agent.xdp_program("client0") is None
    assert agent.ask("service", "list") == {"services": []}
    assert agent.ask("verify")["drift_count"] == 0
    assert agent.ask("reset", "--yes") == {"changed": False, "removed": []}


def test_reset_without_an_agent(agent):
    before = kernel_state(agent)
    agent.apply(document(service()))
    agent.stop()
    assert agent.ask("reset", "--yes")["changed"] is True
    assert kernel_state(agent) == before
    assert left(agent) == set()
    agent.start()
    assert agent.ask("service", "list") == {"services": []}


def test_reset_asks_first(agent):
    agent.apply(document(service()))
    done = agent.run("reset", document="")
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert agent.xdp_program("client0") is not None


def test_a_device_that_is_no_longer_ours_gets_its_sysctls_back(agent):
    before = kernel_state(agent)
    agent.apply(document(service()))
    both = kernel_state(agent)
    agent.apply(document(service(), devices=["client0"]))
    one = kernel_state(agent)
    assert both["forwarding"] != one["forwarding"]
    assert [line for line in one["forwarding"] if "backend0" in line] == [
        line for line in before["forwarding"] if "backend0" in line
    ]
    assert agent.ask("verify")["drift_count"] == 0
    agent.ask("reset", "--yes")
    assert kernel_state(agent) == before
