"""Frames that take several buffers (an MTU of 9000), through the load balancer at native XDP.

client 10.8.0.2 eth0 --- eth0 10.8.0.1 node 10.9.0.1 eth1 --- eth0 10.9.0.2 backend
       fd08::2                fd08::1       fd09::1                 fd09::2
"""

import pytest

from datapath.compile.config import read_config
from datapath.kernel import features
from netns.balanced import PORT, Balanced, datagram, document, echo, transfer
from netns.topology import bpffs

MTU = 9000
VIPS = {4: "192.0.2.10", 6: "2001:db8::10"}
BACKEND = {4: "10.9.0.2", 6: "fd09::2"}
HEADERS = {4: 20, 6: 40}


@pytest.fixture
def balanced(tmp_path):
    if not features.has("xdp_frags"):
        pytest.skip("this kernel has no XDP programs for frames in several buffers")
    with bpffs(tmp_path / "bpf") as mounted:
        made = Balanced(mounted)
        for namespace, device, net, host in (
            (made.client, "eth0", 8, 2),
            (made.node, "eth0", 8, 1),
            (made.node, "eth1", 9, 1),
            (made.backend, "eth0", 9, 2),
        ):
            namespace.run(f"ip link set {device} mtu {MTU}")
            namespace.run(f"ip address add 10.{net}.0.{host}/24 dev {device}")
            namespace.run(f"ip address add fd0{net}::{host}/64 dev {device} nodad")
        for net, namespace in ((8, made.client), (9, made.backend)):
            namespace.run(f"ip route add default via 10.{net}.0.1")
            namespace.run(f"ip -6 route add default via fd0{net}::1")
        yield made
        made.close()


def services_of(version):
    """The VIP's, by TCP and by UDP."""
    end = "{}" if version == 4 else "[{}]"
    vip, backend = end.format(VIPS[version]), end.format(BACKEND[version])
    return [(f"{vip}:80/{kind}", f"{backend}:{PORT}") for kind in ("TCP", "UDP")]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("acceleration", ["native", "disabled"])
def test_large_frames(balanced, version, acceleration):
    vip, backend = VIPS[version], BACKEND[version]
    have = balanced.apply(
        balanced.node, document(services_of(version), devices="eth0,eth1", bpf_lb_acceleration=acceleration)
    )
    native = acceleration == "native"
    assert set(have.load_balancer.attachments.values()) == {"native" if native else "tc"}
    assert bool(read_config(have).multi_buffer) is native
    with echo(balanced.backend, backend):
        segment = transfer(balanced.client, vip, 80, bytes(range(256)) * 2000)
        assert segment > MTU - HEADERS[version] - 60
        # Of one buffer, of several, and as long as it gets.
        for size in (1000, 3400, 3500, 4096, MTU - HEADERS[version] - 8):
            datagram(balanced.client, vip, 80, size)


@pytest.mark.parametrize("version", [4, 6])
def test_answer_about_a_large_frame(balanced, version):
    """The backend's link takes less than the client's: the load balancer says so, quoting the beginning."""
    for namespace, device in ((balanced.node, "eth1"), (balanced.backend, "eth0")):
        namespace.run(f"ip link set {device} mtu 1500")
    balanced.apply(balanced.node, document(services_of(version), devices="eth0,eth1"))
    with echo(balanced.backend, BACKEND[version]):
        assert transfer(balanced.client, VIPS[version], 80, bytes(range(256)) * 500) <= 1460
