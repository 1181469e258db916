"""Frames that take several buffers (an MTU of 9000), through the load balancer at native XDP."""

import pytest

from datapath.compile.config import read_config
from datapath.kernel import devices
from netns.balanced import BACKEND, VIPS, Balanced, datagram, document, echo, services_of, transfer
from netns.topology import bpffs

MTU = 9000
HEADERS = {4: 20, 6: 40}


def with_mtu(namespace, device, _net):
    namespace.run(f"ip link set {device} mtu {MTU}")
    return device


@pytest.fixture
def balanced(tmp_path):
    if devices.xdp_features(1) is None:
        pytest.skip("this kernel (before 6.3) does not redirect frames in several buffers")
    with bpffs(tmp_path / "bpf") as mounted:
        made = Balanced(mounted)
        made.address(with_mtu)
        yield made
        made.close()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("acceleration", ["native", "disabled"])
def test_large_frames(balanced, version, acceleration):
    vip, backend = VIPS[version], BACKEND[version]
    wanted = document(services_of(version), devices="eth0,eth1", bpf_lb_acceleration=acceleration)
    have = balanced.apply(wanted)
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
    balanced.apply(document(services_of(version), devices="eth0,eth1"))
    with echo(balanced.backend, BACKEND[version]):
        assert transfer(balanced.client, VIPS[version], 80, bytes(range(256)) * 500) <= 1460
