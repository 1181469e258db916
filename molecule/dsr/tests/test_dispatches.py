"""Requests by every dispatch, judged by clients, backends' answers and captures alone."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from lib import lab

COUNT = 600
CLIENT = {4: "198.18.1.10", 6: "2001:db8:0:1::10"}
BE1 = {4: "198.18.21.10", 6: "2001:db8:0:21::10"}
ROUTER_SIDE = "net 192.0.2.0/24 or net 2001:db8:0:ff::/64"


def tshark(path, expression, *fields):
    """Rows of fields of the packets that a display filter lets through, as tshark dissects them."""
    command = ["tshark", "-r", str(path), "-Y", expression, "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [tuple(line.split("\t")) for line in said.splitlines()]


def ask(name, targets=lab.TARGETS):
    """Requests to services, with captures at a backend and at a load balancer."""
    with (
        lab.capture("be1", "eth0", "ip or ip6", f"dsr-{name}") as at_be1,
        lab.capture("router", "lb1", ROUTER_SIDE, f"dsr-{name}") as at_lb1,
    ):
        report = lab.load("--count", COUNT, *targets)
    return report, at_be1, at_lb1


def check_answers(report):
    assert lab.failures(report) == {}
    for target, counts in report.items():
        assert set(counts["backends"]) == set(lab.BACKENDS), target
        # Backends see the clients themselves.
        assert set(counts["sources"]) <= set(CLIENT.values()), counts["sources"]


def check_return(at_lb1):
    """No answer goes by a load balancer."""
    assert tshark(at_lb1, "ip.src == 192.0.2.10 or ipv6.src == 2001:db8:0:ff::10", "frame.number") == []
    assert tshark(at_lb1, "ip.dst == 192.0.2.10", "frame.number") != []


def test_opt():
    """What the scenario converged to: an option says which service a packet was for."""
    report, at_be1, at_lb1 = ask("opt")
    check_answers(report)
    check_return(at_lb1)
    syns = tshark(at_be1, "tcp.dstport == 8080 and tcp.flags == 0x02 and ip", "ip.src", "ip.dst", "ip.hdr_len")
    balanced = {row for row in syns if row[0] == CLIENT[4]}
    assert balanced == {(CLIENT[4], BE1[4], "28")}
    later = tshark(at_be1, "tcp.dstport == 8080 and tcp.flags.syn == 0 and ip", "ip.src", "ip.hdr_len")
    assert {row for row in later if row[0] == CLIENT[4]} == {(CLIENT[4], "20")}
    datagrams = tshark(at_be1, "udp.dstport == 8053 and ip", "ip.src", "ip.hdr_len")
    assert set(datagrams) == {(CLIENT[4], "28")}
    options = tshark(at_be1, "ipv6.dstopts and udp.dstport == 8053", "ipv6.src", "ipv6.opt.type")
    assert set(options) == {(CLIENT[6], "0x1b")}
    answers = tshark(at_be1, "tcp.srcport == 80 and ip", "ip.src", "ip.dst")
    assert set(answers) == {("192.0.2.10", CLIENT[4])}


def test_geneve():
    lab.converge_dsr(datapath_lb_dsr_dispatch="geneve")
    report, at_be1, at_lb1 = ask("geneve")
    check_answers(report)
    check_return(at_lb1)
    tunnelled = tshark(at_be1, "geneve and ip.version == 4", "udp.dstport", "geneve.vni", "geneve.proto_type")
    assert {row[1:] for row in tunnelled} == {("0x000002", "0x6558")}
    assert tshark(at_be1, "udp.port == 6081 and ipv6", "frame.number") != []
    # Only the load balancers' health checks come without a tunnel.
    plain = tshark(at_be1, "tcp.dstport == 8080 and not geneve and ip", "ip.src")
    assert CLIENT[4] not in {row[0] for row in plain}


SERVERS = """
ip address replace 192.0.2.10/32 dev lo
ip -6 address replace 2001:db8:0:ff::10/128 dev lo nodad
sed -E 's/(listen (\\[::\\]:)?)8080/\\180/; s/lab-nginx.pid/lab-nginx-80.pid/' /etc/lab/nginx.conf > /run/nginx-80.conf
systemd-run --quiet --collect --unit lab-http-80 nginx -c /run/nginx-80.conf
systemd-run --quiet --collect --unit lab-udp-53 python3 /usr/local/lib/lab/udp_server.py 53 192.0.2.10 2001:db8:0:ff::10
"""
"""What `ipip` asks of backends: the VIPs on the loopback device, and servers on the services' own ports."""
NO_SERVERS = """
systemctl stop lab-udp-53 lab-http-80
ip address del 192.0.2.10/32 dev lo
ip -6 address del 2001:db8:0:ff::10/128 dev lo
"""


@pytest.fixture
def servers():
    """The VIPs' servers on the backends, for as long as packets come to them in tunnels."""
    for node in lab.BACKENDS:
        lab.run(node, "sh", "-c", NO_SERVERS, check=False)
        lab.shell(node, SERVERS)
    yield
    for node in lab.BACKENDS:
        lab.run(node, "sh", "-c", NO_SERVERS, check=False)


def services(families):
    """All four services; `families` maps that of a VIP to that of its backends."""
    check = {"type": "http", "path": "/healthz", "interval": "500ms", "timeout": "300ms", "rise": 2, "fall": 2}
    found = []
    for name, vip in ((4, lab.VIP4), (6, f"[{lab.VIP6}]")):
        nets = (21, 22, 23)
        backends = [f"198.18.{net}.10" if families[name] == 4 else f"[2001:db8:0:{net}::10]" for net in nets]
        web = [f"{each}:80" for each in backends]
        dns = [f"{each}:53" for each in backends]
        found.append({"name": f"web{name}", "frontends": [f"{vip}:80/TCP"], "backends": web, "health_check": check})
        on_web = {**check, "port": 80}
        found.append({"name": f"dns{name}", "frontends": [f"{vip}:53/UDP"], "backends": dns, "health_check": on_web})
    return found


@pytest.mark.parametrize("outer", [4, 6])
def test_ipip(servers, outer):
    """Both families through tunnels of one; dispatch and services, which ask for each other, change in one step."""
    lab.converge_dsr(datapath_lb_dsr_dispatch="ipip", datapath_services=services({4: outer, 6: outer}))
    report, at_be1, at_lb1 = ask(f"ipip{outer}")
    check_answers(report)
    check_return(at_lb1)
    inner = {4: ("ip", "ip.dst", lab.VIP4), 6: ("ipv6", "ipv6.dst", lab.VIP6)}
    around = {4: "ip.dst == 198.18.21.10", 6: "ipv6.dst == 2001:db8:0:21::10"}[outer]
    for family, (name, field, vip) in inner.items():
        # Both headers have a field of that name where the families are the same.
        rows = tshark(at_be1, f"{around} and {name} and tcp.dstport == 80", field)
        ends = {address for (row,) in rows for address in row.split(",")}
        assert vip in ends, (family, ends)


def test_tc():
    """The same without XDP."""
    lb_node = yaml.safe_load((lab.ROOT / "inventories/lab/group_vars/lb_node.yml").read_text())
    options = {**lb_node["cilium_config_extra_vars"], "bpf-lb-acceleration": "disabled"}
    lab.converge_dsr(datapath_lb_dsr_dispatch="geneve", cilium_config_extra_vars=options)
    for node in lab.LOAD_BALANCERS:
        (link,) = json.loads(lab.run(node, "ip", "-j", "-d", "link", "show", "dev", "eth0").out)
        assert link.get("xdp", {}).get("prog") is None, link["xdp"]
    report, _, at_lb1 = ask("tc")
    check_answers(report)
    check_return(at_lb1)
    with lab.Load("--workers", "4", "--keep", "4", *lab.TARGETS) as load:
        load.wait_until_kept()
        lab.converge_dsr(datapath_lb_dsr_dispatch="geneve")
    assert lab.failures(load.report) == {}, "XDP took over under load"


def test_hybrid():
    """TCP by direct server return, UDP through the load balancers."""
    lab.converge_dsr(cilium_loadbalancer_mode="hybrid", datapath_lb_dsr_dispatch="opt")
    report, _, _ = ask("hybrid")
    assert lab.failures(report) == {}
    for target, counts in report.items():
        if target.startswith("tcp"):
            assert set(counts["sources"]) <= set(CLIENT.values())
        else:
            assert set(counts["sources"]) <= lab.SNAT["lb1"] | lab.SNAT["lb2"]


def test_established_connections_stay_when_backends_change():
    """Tables change under connections: those to backends that stay do not move, and none is recorded without need."""
    lab.converge_dsr(datapath_lb_dsr_dispatch="opt")
    with lab.Load("--workers", "2", "--keep", "100", "--pause", "0.2", lab.TCP4, lab.TCP6) as load:
        load.wait_until_kept()
        lab.shell("be3", "systemctl stop lab-http")
        lab.wait_until(lambda: all(len(lab.unhealthy(node)) >= 2 for node in lab.LOAD_BALANCERS))
        lab.shell("be3", "systemctl start lab-http")
        lab.wait_until(lambda: not any(lab.unhealthy(node) for node in lab.LOAD_BALANCERS))
    for target, counts in load.report.items():
        moved = [failure for failure in counts["failures"] if failure["flow"] in ("be1", "be2")]
        assert moved == [], target


def running(node):
    """Id of the program in service, and what it is said to do."""
    status = lab.datapath(node, "status")
    (link,) = json.loads(lab.run(node, "ip", "-j", "-d", "link", "show", "dev", "eth0").out)
    return link["xdp"]["prog"]["id"], status["mode"], status["converged"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"datapath_lb_dsr_dispatch": "opts"}, ("opts", "opt", "geneve")),
        ({"cilium_config_extra_vars": {"tunnel-protocol": "vxlan"}}, ("vxlan",)),
        ({"datapath_lb_rss_ipv4_src_cidr": "10.9.0.0/16"}, ("rss", "ipip")),
        ({"cilium_loadbalancer_mode": "hybrid", "datapath_lb_mode_annotation": True}, ("hybrid",)),
    ],
)
def test_refused(variables, words):
    """With the reason, and nothing changes."""
    before = [running(node) for node in lab.LOAD_BALANCERS]
    arguments = ("-i", "inventories/lab_dsr", "-e", json.dumps({"cilium_loadbalancer_mode": "dsr", **variables}))
    result = lab.playbook("cluster", *arguments)
    assert result.returncode != 0
    said = result.stdout + result.stderr
    assert [word for word in words if word not in said] == [], said
    assert [running(node) for node in lab.LOAD_BALANCERS] == before


def test_backend_without_the_executor_is_refused():
    """Named, before anything is touched."""
    result = lab.playbook("cluster", "-e", json.dumps({"cilium_loadbalancer_mode": "dsr"}))
    assert result.returncode != 0
    assert BE1[4] in result.stdout + result.stderr
