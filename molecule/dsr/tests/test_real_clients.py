"""Clients that people use, through direct server return: iperf3, dig, and downloads over a path that is too narrow."""

from __future__ import annotations

import json

import pytest

from lib import lab

FAMILIES = {4: (lab.VIP4, "198.18.2{}.10:{}"), 6: (lab.VIP6, "[2001:db8:0:2{}::10]:{}")}
IPERF, DNS = 5201, 5353
NARROW = 1280
SERVERS = f"""
systemd-run --quiet --collect --unit lab-iperf iperf3 --server --port {IPERF}
systemd-run --quiet --collect --unit lab-dns dnsmasq --keep-in-foreground --no-resolv --no-hosts --user=root \\
  --port={DNS} --txt-record=whoami,$(hostname)
"""


def items():
    """Services for them: iperf3 needs all its connections at one server, dig asks all of them."""
    found = []
    for family, (vip, pattern) in FAMILIES.items():
        ip = f"[{vip}]" if family == 6 else vip
        for protocol in ("TCP", "UDP"):
            one = {"frontends": [f"{ip}:{IPERF}/{protocol}"], "backends": [pattern.format(1, IPERF)]}
            found.append({"name": f"iperf{family}-{protocol.lower()}", **one})
            every = [pattern.format(number, DNS) for number in (1, 2, 3)]
            one = {"frontends": [f"{ip}:53/{protocol}"], "backends": every}
            found.append({"name": f"names{family}-{protocol.lower()}", **one})
        large = [pattern.format(number, 8080) for number in (1, 2, 3)]
        found.append({"name": f"large{family}", "frontends": [f"{ip}:80/TCP"], "backends": large})
    return found


@pytest.fixture(scope="module", params=["opt", "geneve"])
def dispatch(request):
    lab.converge_dsr(datapath_lb_dsr_dispatch=request.param)
    for node in lab.BACKENDS:
        lab.shell(node, SERVERS)
    for node in lab.LOAD_BALANCERS:
        lab.datapath(node, "apply", "-", stdin=json.dumps({"services": {"items": items(), "purge": True}}))
    yield request.param
    for node in lab.BACKENDS:
        lab.shell(node, "systemctl stop lab-iperf lab-dns; ip route flush cache; ip -6 route flush cache")


@pytest.fixture
def narrow_path():
    """The router's way to the client takes smaller packets than all other ways."""
    lab.run("router", "ip", "link", "set", "client", "mtu", str(NARROW))
    yield
    lab.run("router", "ip", "link", "set", "client", "mtu", "1500")


def iperf(vip, *arguments):
    command = ("iperf3", "--client", vip, "--port", str(IPERF), "--time", "2", "--json", *arguments)
    return json.loads(lab.run("client", *command).out)["end"]


@pytest.mark.parametrize("vip", [lab.VIP4, lab.VIP6])
def test_iperf3_over_tcp(dispatch, vip):
    """Full segments: in Geneve they are too big, of which the load balancer tells the client."""
    sums = iperf(vip)
    assert sums["sum_received"]["bytes"] > 1_000_000
    assert sums["sum_received"]["bytes"] >= 0.9 * sums["sum_sent"]["bytes"]


def full_receivers(node):
    """Datagrams that reached a node, but found their receiver's buffer full: a busy machine's, not the way's fault."""
    counted = lab.shell(node, "nstat --ignore --noupdate --zeros --json UdpRcvbufErrors Udp6RcvbufErrors")
    return sum(json.loads(counted)["kernel"].values())


@pytest.mark.parametrize("vip", [lab.VIP4, lab.VIP6])
def test_iperf3_numbers_its_datagrams(dispatch, vip):
    before = full_receivers("be1")
    sums = iperf(vip, "--udp", "--bitrate", "10M", "--length", "1200")
    assert sums["sum"]["packets"] > 1000
    assert sums["sum"]["lost_packets"] <= full_receivers("be1") - before


@pytest.mark.parametrize("vip", [lab.VIP4, lab.VIP6])
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
def test_dig(dispatch, vip, transport):
    ask = f"for n in $(seq 30); do dig +short +time=2 +tries=1 {transport} @{vip} whoami TXT; done"
    answers = [line.strip('"') for line in lab.shell("client", ask).split()]
    assert len(answers) == 30
    assert set(answers) == set(lab.BACKENDS)


def download(vip):
    """Fetch what does not fit into one packet; the backends' caches of routes afterwards."""
    sent = lab.shell("be1", "sha256sum < /usr/bin/python3.11")
    for _ in range(6):
        assert lab.shell("client", f"curl --silent --max-time 10 --globoff http://{vip}/large | sha256sum") == sent
    return [lab.shell(node, "ip route show cache; ip -6 route show cache") for node in lab.BACKENDS]


@pytest.mark.parametrize("vip", [lab.VIP4, f"[{lab.VIP6}]"])
def test_backends_learn_the_mtu_of_the_path(dispatch, narrow_path, vip):
    """The router's errors are for the VIP: any load balancer may get them, and has to find the flow's backend."""
    learnt = download(vip)
    assert any(f"mtu {NARROW}" in routes for routes in learnt), learnt


def relayed():
    """Errors that a load balancer has handed to the other one."""
    found = [lab.datapath(node, "status", "-v")["outcomes"] for node in lab.LOAD_BALANCERS]
    return sum(row["packets"] for each in found for row in each if row["name"] == "icmp_error_relayed")


def test_with_snat_errors_reach_the_load_balancer_that_has_the_flow(narrow_path):
    """The router sends them to either: their ports, of which they have none, take part in its choice."""
    peers = sorted(set().union(*lab.SNAT.values()))
    lab.converge_dsr(cilium_loadbalancer_mode="snat", datapath_lb_peers=peers)
    before = relayed()
    for vip in (lab.VIP4, f"[{lab.VIP6}]"):
        learnt = download(vip)
        assert any(f"mtu {NARROW}" in routes for routes in learnt), learnt
    assert relayed() > before
