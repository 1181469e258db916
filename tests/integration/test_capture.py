"""`datapath capture`: frames before and after, read by tshark; forwarding does not notice."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from integration.node import BACKENDS, BACKENDS6, VIP, VIP6, answers, document, get, service, web_servers
from netns.topology import wait_for

CLIENT = "198.51.100.2"


def tshark(path, expression, *fields):
    command = ["tshark", "-r", str(path), "-Y", expression, "-T", "fields", "-E", "separator=|"]
    for field in fields:
        command += ["-e", field]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [tuple(line.split("|")) for line in said.splitlines()]


@contextmanager
def capturing(node, path, *arguments):
    """`datapath capture` while the block runs, from the moment that it captures; its stderr afterwards in a list."""
    said = []
    with node.lb:
        process = subprocess.Popen(
            (sys.executable, "-m", "datapath", "capture", "-w", str(path), *arguments),
            env=node.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
    said.append(process.stderr.readline())
    assert said[0].startswith("capturing on"), said[0] + process.stderr.read()
    try:
        yield said
        if process.poll() is None:
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
    finally:
        said.append(process.communicate(timeout=30)[1])
        said.append(process.returncode)


@pytest.fixture
def serving(agent):
    agent.apply(document(service()))
    with web_servers(agent.backend, *BACKENDS[:2]):
        wait_for(lambda: answers(agent.client, VIP, 1), what="a first answer")
        yield agent


def test_before_and_after(serving, tmp_path):
    path = tmp_path / "frames.pcapng"
    with capturing(serving, path, "--port", "80") as said:
        get(serving.client, VIP)
    assert said[2] == 0
    fields = ("ip.src", "ip.dst", "frame.comment", "frame.interface_name")
    before, after = tshark(path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", *fields)
    assert before == (CLIENT, VIP, "before", "client0")
    assert after[0] != CLIENT
    assert after[1] in BACKENDS
    assert after[2:] == ("after: request_new_flow, forward", "backend0")
    # Replies have the backend's port and are addressed to the load balancer: the filter is for what comes in.
    assert tshark(path, "tcp.srcport == 8080", "frame.number") == []
    with capturing(serving, path, "--port", "8080"):
        get(serving.client, VIP)
    replies = tshark(path, "tcp.flags.syn == 1 && tcp.flags.ack == 1", "ip.src", "tcp.srcport", "frame.comment")
    assert [row[2] for row in replies] == ["before", "after: reply_forwarded, forward"]
    assert replies[1][:2] == (VIP, "80")


def test_what_is_dropped_and_what_passes(serving, tmp_path):
    path = tmp_path / "frames.pcapng"
    with (
        capturing(serving, path, "--host", f"{VIP}/32", "--protocol", "tcp"),
        pytest.raises(OSError, match="timed out"),
    ):
        get(serving.client, VIP, port=81, timeout=0.5)
    comments = tshark(path, "tcp.dstport == 81", "frame.comment", "ip.dst")
    assert ("after: unknown_port_dropped, drop", VIP) in comments
    with capturing(serving, path, "--device", "client0", "--protocol", "icmp"):
        serving.client.run("ping -c 1 -W 2 198.51.100.1")
    assert tshark(path, "icmp", "frame.comment") == [("before",), ("after: icmp_passed, pass",)]


def test_the_filter_looks_behind_tags(serving, tmp_path):
    path = tmp_path / "frames.pcapng"
    inside = IP(src=CLIENT, dst=VIP) / UDP(sport=7, dport=9)
    with (
        capturing(serving, path, "--host", VIP, "--port", "9"),
        serving.client,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender,
    ):
        sender.bind(("eth0", 0))
        for tags in (Dot1Q(vlan=7), Dot1Q(vlan=100, type=0x8100) / Dot1Q(vlan=7), Dot1Q(vlan=7)):
            sender.send(bytes(Ether(dst="02:00:00:00:00:09") / tags / inside))
        sender.send(
            bytes(Ether(dst="02:00:00:00:00:09") / Dot1Q(vlan=7) / IP(src=CLIENT, dst="192.0.2.77") / UDP(dport=9))
        )
    comments = tshark(path, "vlan", "frame.comment")
    assert comments == [("before",), ("after: vlan_passed, pass",)] * 3


def test_a_device_without_program_is_refused(serving):
    done = serving.run("capture", "-w", os.devnull, "--device", "lo")
    assert done.returncode == 2
    assert "carries no XDP program" in done.stderr
    assert "client0" in done.stderr


def test_networks_of_ipv6(agent, tmp_path):
    six = {"name": "web6", "frontends": [f"[{VIP6}]:80/TCP"], "backends": [f"[{each}]:8080" for each in BACKENDS6[:2]]}
    agent.apply(document(service(), six))
    path = tmp_path / "frames.pcapng"
    with web_servers(agent.backend, *BACKENDS[:2], *BACKENDS6[:2]):
        wait_for(lambda: answers(agent.client, VIP6, 1), what="a first answer")
        with capturing(agent, path, "--host", f"{VIP6}/127"):
            get(agent.client, VIP)
            get(agent.client, VIP6)
    assert tshark(path, "ip", "frame.number") == []
    comments = tshark(path, "tcp.flags.syn == 1 && tcp.flags.ack == 0", "ipv6.dst", "frame.comment")
    assert comments[0] == (VIP6, "before")
    assert comments[1][0] in BACKENDS6


def test_at_tc_there_is_tcpdump(agent):
    agent.apply(document(service(), acceleration="disabled"))
    done = agent.run("capture", "-w", os.devnull)
    assert done.returncode == 1
    assert "tcpdump" in done.stderr


def test_the_count_ends_it(serving, tmp_path):
    path = tmp_path / "frames.pcapng"
    with capturing(serving, path, "--count", "2", "--snaplen", "60", "--port", "80") as said:
        answers(serving.client, VIP, 10)
    assert said[1].startswith("2 frames")
    assert len(tshark(path, "frame", "frame.number")) == 4
    assert {int(row[0]) for row in tshark(path, "frame", "frame.cap_len")} <= set(range(61))


def problems(client):
    """What went wrong with a request."""
    try:
        get(client, VIP, timeout=2)
    except OSError as error:
        return [error]
    return []


def test_forwarding_does_not_notice(serving, tmp_path):
    """The programs change places twice, under load; flows, counters and the program that is pinned are the same."""
    program = serving.xdp_program("client0")
    failed, stop = [], threading.Event()

    def load():
        while not stop.is_set() and not failed:
            failed.extend(problems(serving.client))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            with capturing(serving, tmp_path / "frames.pcapng", "--port", "80"):
                assert serving.xdp_program("client0") != program
                time.sleep(0.3)
            assert serving.xdp_program("client0") == program
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failed == []
    assert serving.ask("verify")["drift_count"] == 0


def test_the_client_that_vanishes(serving, tmp_path):
    """Then the time ends it."""
    program = serving.xdp_program("client0")
    with serving.lb:
        process = subprocess.Popen(
            (sys.executable, "-m", "datapath", "capture", "-w", str(tmp_path / "x"), "--seconds", "3"),
            env=serving.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    process.stderr.readline()
    assert serving.xdp_program("client0") != program
    process.kill()
    process.communicate()
    wait_for(lambda: serving.xdp_program("client0") == program, what="the program in its place again")


def test_the_agent_that_vanishes(serving, tmp_path):
    """The next one puts the program back."""
    with capturing(serving, tmp_path / "x") as said:
        serving.stop(signal.SIGKILL)
    assert said[2] != 0
    assert answers(serving.client, VIP, 5)
    serving.start()
    assert serving.ask("verify")["drift_count"] == 0
    with capturing(serving, tmp_path / "x") as said:
        get(serving.client, VIP)
    assert said[2] == 0


def test_an_apply_ends_it(serving, tmp_path):
    """But not one that is refused."""
    program = serving.xdp_program("client0")
    with capturing(serving, tmp_path / "x") as said:
        assert said[0] == "capturing on backend0, client0 for 60 s at most; Ctrl-C ends it\n"
        serving.apply({"services": {"items": [{"name": "x", "frontends": ["nowhere"]}]}}, code=2)
        assert serving.xdp_program("client0") != program
        again = serving.apply(document(service()))
        assert (again["changed"], again["operations"]) == (False, [])
        assert serving.ask("verify")["drift_count"] == 0
    assert "ended by the agent" in said[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "client1"), ("--device", "client0")),
        (("--protocol", "tpc"), ("--protocol", "tcp")),
        (("--host", "vip"), ("--host", "192.0.2.10")),
        (("--port", "70000"), ("--port", "1 to 65535")),
        (("--seconds", "0"), ("--seconds", "1 to 3600")),
        (("--count", "-1"), ("--count",)),
        (("-w", "/nowhere/x"), ("/nowhere/x",)),
    ],
)
def test_refused(serving, arguments, words):
    path = () if "-w" in arguments else ("-w", os.devnull)
    done = serving.run("capture", *path, *arguments)
    assert done.returncode != 0
    assert [word for word in words if word not in done.stderr] == []


def test_one_at_a_time(serving, tmp_path):
    with capturing(serving, tmp_path / "x"):
        done = serving.run("capture", "-w", os.devnull)
        assert done.returncode == 2
        assert "somebody captures already" in done.stderr
        # Which must not have ended the other's.
        assert serving.run("capture", "-w", os.devnull).returncode == 2
