"""Life and death of the agent: forwarding and desired state outlive it."""

import json
import signal
import stat
import threading
import time

from integration.node import BACKENDS, VIP, answers, document, get, service, web_servers
from netns.topology import wait_for

NOTHING = {"items": [], "purge": True}


class Load:
    """Requests one after the other until the block ends; `errors` holds what failed."""

    def __init__(self, node):
        self.node, self.done, self.errors = node, 0, []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._stop.is_set():
            try:
                status, _ = get(self.node.client, VIP, timeout=10)
                if status != 200:
                    self.errors.append(status)
            except OSError as error:
                self.errors.append(error)
            self.done += 1

    def more(self, count):
        """Wait for `count` more requests."""
        target = self.done + count
        wait_for(lambda: self.done >= target, 60, f"{count} more requests")

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


def test_the_socket_is_for_root_only(agent):
    socket = agent.root / "run/datapath/datapathd.sock"
    assert stat.S_ISSOCK(socket.stat().st_mode)
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600


def test_killed_and_restarted_under_load_no_request_fails(agent):
    with web_servers(agent.backend, *BACKENDS[:2]):
        agent.apply(document(service()))
        wait_for(lambda: get(agent.client, VIP)[0] == 200, what="an answer")
        program = agent.xdp_program("client0")
        with Load(agent) as load:
            load.more(50)
            assert agent.stop(signal.SIGKILL) == -signal.SIGKILL
            load.more(200)
            assert agent.xdp_program("client0") == program
            agent.start()
            load.more(200)
        assert load.errors == []
    assert agent.xdp_program("client0") == program
    assert "datapath_map_writes_total 0.0" in metrics(agent)


def metrics(node):
    """The metrics, by the agent's own socket."""
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(node.root / "run/datapath/datapathd.sock"))
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    return answer.decode()


def test_a_restart_writes_no_map_and_loads_no_program(agent):
    agent.apply(document(service(health_check={"type": "tcp", "interval": "9s"})))
    program, writes = agent.xdp_program("client0"), "datapath_map_writes_total"
    assert f"{writes} 0.0" not in metrics(agent)
    assert agent.stop() == 0
    assert not (agent.root / "run/datapath/datapathd.sock").exists()
    agent.start()
    assert f"{writes} 0.0" in metrics(agent)
    assert agent.xdp_program("client0") == program
    status = agent.ask("status")
    assert (status["converged"], status["drift"], status["last_apply"]) == (True, 0, None)


def test_the_stored_state_is_converged_at_start(agent):
    """As after a reboot: the kernel has nothing, the disk has everything."""
    agent.apply(document(service()))
    stored = agent.desired.read_bytes()
    agent.ask("reset", "--yes")
    agent.stop()
    agent.desired.write_bytes(stored)
    agent.start()
    assert len(agent.dump("services_v1")) == 1
    assert agent.ask("verify")["drift_count"] == 0


def test_there_is_one_agent(agent):
    done = agent.run("agent")
    assert done.returncode == 1
    assert "another agent" in done.stderr
    assert agent.ask("status")["pid"] == agent.process.pid


def test_drift_is_shown_and_an_apply_heals_it(agent):
    wanted = document(service())
    agent.apply(wanted)
    assert agent.ask("verify")["drift_count"] == 0
    key = next(iter(agent.dump("services_v1")))
    agent.bpftool("map", "delete", "pinned", str(agent.pins / "maps/services_v1"), "key", *(str(byte) for byte in key))
    drift = agent.ask("verify", code=3)
    rows = [row for row in drift["drift"] if row["key"] == f"{VIP}:80/TCP"]
    assert [row["action"] for row in rows] == ["create"]
    assert rows[0]["summary"] in agent.run("verify").stdout
    assert agent.ask("status")["drift"] == drift["drift_count"] == len(drift["drift"])
    assert agent.apply(wanted)["changed"] is True
    assert agent.ask("verify")["drift_count"] == 0


def test_a_reload_heals_drift(agent):
    agent.apply(document(service()))
    agent.lb.run("ip link set dev client0 xdpdrv off", check=False)
    agent.lb.run("sysctl -qw net.ipv4.conf.client0.forwarding=0")
    assert agent.ask("verify", code=3)["drift_count"] >= 1
    agent.process.send_signal(signal.SIGHUP)
    wait_for(lambda: agent.ask("status")["drift"] == 0, 15, "convergence")


def test_a_lost_state_leaves_forwarding_alone_and_is_kept(agent):
    wanted = document(service())
    with web_servers(agent.backend, *BACKENDS[:2]):
        agent.apply(wanted)
        wait_for(lambda: get(agent.client, VIP)[0] == 200, what="an answer")
        agent.stop()
        agent.desired.write_text("{ damaged")
        agent.start()
        assert len(answers(agent.client, VIP)) == 2
        status = agent.ask("status")
        assert any("forwarding is left as it is" in problem for problem in status["problems"])
        whole = {**wanted, **dict.fromkeys(("programs", "endpoints", "clustermesh"), NOTHING)}
        merging = {**whole, "options": {**wanted["options"], "merge": True}}
        for part in ({"services": {"items": [service("other")]}}, merging):
            for how in (agent.check, agent.apply):
                assert "cannot be changed in part" in how(part, code=2)["errors"][0]["message"]
        assert agent.desired.read_text() == "{ damaged"
        assert len(answers(agent.client, VIP)) == 2
        report = agent.apply(whole)
        assert report["map_writes"] == 0
        assert len(answers(agent.client, VIP)) == 2
    kept = list(agent.desired.parent.glob("desired.json.unreadable-*"))
    assert [path.read_text() for path in kept] == ["{ damaged"]
    assert agent.ask("status")["problems"] == []


def test_a_device_that_comes_later_is_waited_for(agent):
    agent.apply(document(service(), devices=["client0"], acceleration="testing-only"))
    stored = json.loads(agent.desired.read_text())
    agent.ask("reset", "--yes")
    agent.stop()
    stored["document"]["options"]["config"]["devices"] = ["client0", "late0"]
    agent.desired.write_text(json.dumps(stored))
    agent.start()
    error = agent.ask("status")["last_error"]
    assert error["what"] == "converge"
    assert "late0" in error["errors"][0]["message"]
    agent.lb.run("ip link add late0 type veth peer name late1")
    agent.lb.run("ip link set late0 up")
    wait_for(lambda: agent.ask("status")["converged"], 30, "convergence")
    assert agent.xdp_program("late0") is not None


def test_metrics(agent):
    with web_servers(agent.backend, *BACKENDS[:2]):
        agent.apply(document(service(), prometheus_serve_addr="127.0.0.1:9962"))
        wait_for(lambda: get(agent.client, VIP)[0] == 200, what="an answer")
        answers(agent.client, VIP, 30)
    status, text = get(agent.lb, "127.0.0.1", 9962, "/metrics")
    assert status == 200
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['datapath_packets_total{outcome="request_new_flow",verdict="forward"}']) >= 31
    assert float(values['datapath_service_packets_total{protocol="TCP",service="web"}']) > 100
    for each in BACKENDS[:2]:
        assert float(values[f'datapath_backend_packets_total{{backend="{each}:8080",service="web"}}']) > 0
    assert values[f'datapath_backend_healthy{{backend="{BACKENDS[0]}:8080",service="web"}}'] == "1.0"
    assert values['datapath_map_entries{map="services_v1"}'] == "1.0"
    assert values['datapath_device_attached{device="client0",mode="native"}'] == "1.0"
    assert values["datapath_drift"] == "0.0"
    assert get(agent.lb, "127.0.0.1", 9962, "/v1/status")[0] == 404
    agent.apply(document(service()))
    wait_for(lambda: not _listens(agent, 9962), what="the end of the listener")


def _listens(node, port):
    return f":{port} " in node.lb.run("ss -Hltn")


def test_an_address_that_cannot_be_listened_on_is_a_problem_not_a_failure(agent):
    agent.apply(document(service(), prometheus_serve_addr="203.0.113.99:9962"))
    assert any("203.0.113.99:9962" in problem for problem in agent.ask("status")["problems"])
    agent.apply(document(service()))
    assert agent.ask("status")["problems"] == []


def test_a_stopped_agent_says_so(agent):
    started = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - started < 5
    assert "Traceback" not in agent.log


def test_documents_that_come_at_the_same_time_are_all_applied(agent):
    agent.apply(document())
    ports = range(1000, 1008)

    def item(port):
        name, frontend = f"service{port}", f"{VIP}:{port}/TCP"
        return {"services": {"items": [{"name": name, "frontends": [frontend], "backends": [f"{BACKENDS[0]}:80"]}]}}

    threads = [threading.Thread(target=agent.apply, args=(item(port),)) for port in ports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [row["name"] for row in agent.ask("service", "list")["services"]]
    assert names == [f"service{port}" for port in ports]
    assert agent.ask("verify")["drift_count"] == 0


def test_a_backend_that_moves_behind_a_gateway_is_followed(agent):
    with web_servers(agent.backend, BACKENDS[0]):
        agent.apply(document(service(backends=BACKENDS[:1]), arping_refresh_period="1s"))
        wait_for(lambda: get(agent.client, VIP)[0] == 200, what="an answer")
        agent.lb.run(f"ip route add {BACKENDS[0]}/32 via {BACKENDS[1]}")
        wait_for(lambda: f"{BACKENDS[1]} dev" in _our_neighbours(agent), 20, "the gateway's neighbour entry")
        wait_for(lambda: get(agent.client, VIP)[0] == 200, what="an answer")
    assert agent.ask("verify")["drift_count"] == 0


def _our_neighbours(node):
    return "\n".join(line for line in node.lb.run("ip neigh show").splitlines() if "proto 218" in line)


def test_a_device_that_goes_does_not_stand_in_the_way(agent):
    agent.lb.run("ip link add gone0 type veth peer name gone1")
    agent.lb.run("ip link set gone0 up")
    agent.apply(document(service(), devices=["client0", "gone0"]))
    agent.lb.run("ip link del gone0")
    assert agent.ask("plan", code=2)["errors"][0]["value"] == "gone0"
    assert agent.apply(document(service(), devices=["client0"]))["changed"] is True
    assert agent.ask("verify")["drift_count"] == 0
    agent.ask("reset", "--yes")
