import os
import socket
import subprocess
from pathlib import Path

import pytest

from datapath.kernel import clsact, features, libbpf
from datapath.kernel.abi import AttachType, ProgramType
from datapath.kernel.features import FEATURES


def test_every_feature_has_a_name_of_its_own_and_a_meaning():
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
    assert all(feature.meaning and "\n" not in feature.meaning for feature in FEATURES)
    assert set(features.probe()) == set(names)


def attach(kind, attach_type, target, flags=0):
    with libbpf.closing(libbpf.program_load(kind, features._RETURN_1)) as program:
        os.close(libbpf.link_create(program, target, attach_type, flags))


def add_qdisc(node):
    node.run("tc qdisc add dev eth0 root fq")


def add_managed_neighbour(node):
    # Older kernels accept and ignore what they do not know.
    node.run("ip neigh add 10.9.0.7 dev eth0 managed")
    assert "managed" in node.run("ip neigh show 10.9.0.7 dev eth0")


def use_bbr(_):
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")


def use_cgroup_link(_):
    with libbpf.closing(os.open(libbpf_cgroup(), os.O_RDONLY)) as directory:
        attach(ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_INGRESS, directory)


def libbpf_cgroup():
    from datapath.kernel import cgroups

    path = cgroups.mounts()[0] / f"datapath-features-test-{os.getpid()}"
    path.mkdir(exist_ok=True)
    return path


def index(node):
    with node:
        return socket.if_nametoindex("eth0")


USES = {
    "tcx": lambda node: attach(ProgramType.SCHED_CLS, AttachType.TCX_INGRESS, index(node)),
    "xdp_link": lambda node: attach(ProgramType.XDP, AttachType.XDP, index(node), 1 << 1),
    "cgroup_link": use_cgroup_link,
    "neighbour_managed": add_managed_neighbour,
    "sch_fq": add_qdisc,
    "tcp_bbr": use_bbr,
    "btf": lambda _: Path("/sys/kernel/btf/vmlinux").read_bytes(),
}


@pytest.mark.parametrize("name", sorted(USES))
def test_the_probe_tells_what_using_the_feature_tells(node, name):
    """Each feature used for real: the probe must agree, whether this kernel has it or not."""
    try:
        USES[name](node)
        usable = True
    except (OSError, AssertionError):
        usable = False
    finally:
        if name == "cgroup_link":
            libbpf_cgroup().rmdir()
    assert features.has(name) is usable


def test_probing_leaves_no_trace(node):
    def state():
        return [node.run(command) for command in ("ip -d link", "tc qdisc", "ip neigh", "ip route")], programs()

    def programs():
        listed = subprocess.run(["bpftool", "-j", "prog"], check=True, capture_output=True, text=True).stdout
        return listed.count('"name":"probe"')

    before = state()
    features.has.cache_clear()
    features.neighbours.managed_supported.cache_clear()
    features.probe()
    assert state() == before


def test_a_device_without_clsact_has_no_filters(node):
    assert list(clsact.filters(index(node), "ingress")) == []
    assert list(clsact.everywhere()) == []
    assert clsact.find("one", index(node), "ingress") is None
