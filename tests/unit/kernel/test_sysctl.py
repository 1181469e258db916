from pathlib import Path

import pytest

from datapath.kernel import sysctl


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_local_port_range", "net/ipv4/ip_local_port_range"),
        ("net.ipv4.conf.eth0.forwarding", "net/ipv4/conf/eth0/forwarding"),
        ("net.ipv6.conf.eth0.100.accept_ra", "net/ipv6/conf/eth0.100/accept_ra"),
        ("net.ipv4.neigh.a.b.c.gc_stale_time", "net/ipv4/neigh/a.b.c/gc_stale_time"),
        ("kernel.random.boot_id", "kernel/random/boot_id"),
    ],
)
def test_paths(name, path):
    assert sysctl.path(name) == Path("/proc/sys", path)


def test_written_and_read_back(node):
    node.run("ip link add eth0.100 type veth peer name other")
    name = "net.ipv4.conf.eth0.100.forwarding"
    assert sysctl.read_all(["eth0.100"])[name] == "0"
    sysctl.write(name, "1")
    assert node.run("sysctl -n net.ipv4.conf.eth0/100.forwarding").strip() == "1"
    assert sysctl.read(name) == "1"


def test_fields_are_separated_by_one_space(node):
    assert sysctl.read("net.ipv4.ip_local_port_range") == "32768 60999"


def test_what_is_not_there(node):
    assert sysctl.read("net.ipv4.conf.absent.forwarding") is None
    assert not any("absent" in name for name in sysctl.read_all(["absent"]))
