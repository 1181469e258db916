from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.datapath.plugins.plugin_utils import node

PROBE = Path(__file__).resolve().parents[4] / "roles/preflight/files/probe.sh"
GOOD = """\
uid 0
kernel 6.1.0-18-amd64
machine x86_64
capabilities 000001ffffffffff
btf yes
filesystems sysfs tmpfs bpf cgroup2 ext4
mount cgroup2 /sys/fs/cgroup
mount bpf /sys/fs/bpf
bpffs_directory yes
systemd yes
python 3.11.2
libbpf /usr/lib/x86_64-linux-gnu/libbpf.so.1
package_manager apt-get
local_ports 32768 60999
device eth0 virtio_net up 1500
device eth1 virtio_net down 9000
device lo - unknown 65536
address 10.0.0.2
default_route default via 10.0.0.1 dev eth0
"""
OPTIONS = {"devices": [], "direct-routing-device": "", "datapath-snat-port-range": [1024, 29999]}


def judge(text=GOOD, dry_run=False, **options):
    return node.violations(node.parse(text), {**OPTIONS, **options}, dry_run)


def without(name):
    return "".join(line for line in GOOD.splitlines(keepends=True) if not line.startswith(name))


def test_rates_take_fq():
    options = {"enable-bandwidth-manager": True}
    (told,) = judge(**options)
    assert "no qdisc fq (feature sch_fq)" in told
    assert "CONFIG_NET_SCH_FQ" in told
    assert judge(GOOD + "sch_fq yes\n", **options) == []
    assert judge(**{**options, "enable-bandwidth-manager": False}) == []


@pytest.mark.parametrize(
    ("host_only", "missing", "remedy"),
    [
        (False, "tcp_bbr", "CONFIG_TCP_CONG_BBR"),
        (False, "delivery_time", "from 5.18 on, or set datapath_enable_bbr_hostns_only: true"),
        (True, "tcp_bbr", "CONFIG_TCP_CONG_BBR"),
        (True, "sock_ops_netns", "from 5.15 on"),
    ],
)
def test_bbr_takes_what_it_works_by(host_only, missing, remedy):
    has = {name: f"{name} yes\n" for name in ("tcp_bbr", "delivery_time", "sock_ops_netns")}
    options = {"enable-bbr": True, "enable-bbr-hostns-only": host_only}
    assert judge(GOOD + "".join(has.values()), **options) == []
    (told,) = judge(GOOD + "".join(line for name, line in has.items() if name != missing), **options)
    assert f"(feature {missing})" in told
    assert remedy in told
    assert "cilium_enable_bandwidth_manager_bbr: false" in told
    unneeded = "delivery_time" if host_only else "sock_ops_netns"
    assert judge(GOOD + "".join(line for name, line in has.items() if name != unneeded), **options) == []
    assert judge(**{**options, "enable-bbr": False}) == []


def test_a_good_node_has_no_violations():
    assert judge() == []
    assert judge(dry_run=True) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD.replace("uid 0", "uid 1000"), "not root"),
        (GOOD.replace("000001ffffffffff", "00000000a80425fb"), "CAP_NET_ADMIN and CAP_SYS_ADMIN is missing"),
        (GOOD.replace("x86_64\n", "s390x\n", 1), "machine type s390x"),
        (without("btf"), "has no BTF"),
        (GOOD + "lockdown [confidentiality]\n", "lockdown"),
        (GOOD.replace(" bpf cgroup2", " cgroup2"), "no file system bpf"),
        (without("systemd"), "systemd does not run"),
        (GOOD.replace("3.11.2", "3.8.10"), "python3 is 3.8.10"),
        (without("mount cgroup2"), "no cgroup2 is mounted"),
        (without("mount bpf").replace("bpffs_directory yes\n", ""), "/sys/fs/bpf does not exist"),
        (GOOD.replace("32768 60999", "20000 60999"), "overlaps"),
    ],
)
def test_what_is_missing_is_told_with_consequence_and_remedy(text, expected):
    (line,) = judge(text)
    assert expected in line
    assert line.count(". ") == 2
    assert line.endswith(".")


def test_everything_is_told_at_once():
    assert len(judge("uid 1000\n")) > 5


@pytest.mark.parametrize(
    ("devices", "missing"), [(["eth0"], []), (["eth+"], []), (["eth2"], ["eth2"]), (["ens+", "eth9"], ["ens+", "eth9"])]
)
def test_devices_that_do_not_exist(devices, missing):
    lines = judge(devices=devices)
    assert [line.split()[1] for line in lines] == missing
    assert all("eth0, eth1" in line for line in lines)


def test_the_direct_routing_device_must_exist():
    assert "eth7" in judge(**{"direct-routing-device": "eth7"})[0]


@pytest.mark.parametrize(
    ("ports", "bad"), [("30000 60999", False), ("29999 60999", True), ("500 1024", True), ("500 1023", False)]
)
def test_port_ranges_may_touch_and_not_overlap(ports, bad):
    assert bool(judge(GOOD.replace("32768 60999", ports))) is bad


@pytest.mark.parametrize("name", ["python", "libbpf"])
def test_missing_software_is_installed_and_only_refused_where_it_cannot_be(name):
    assert judge(without(name)) == []
    assert "no package manager" in judge(without(name).replace("package_manager apt-get\n", ""))[0]
    assert "without --check" in judge(without(name), dry_run=True)[0]


def test_nothing_is_asked_of_devices_and_ports_without_options():
    assert node.violations(node.parse(GOOD.replace("32768 60999", "1024 60999")), {}) == []
    assert node.violations(node.parse(GOOD.replace("32768 60999", "1024 60999")), OPTIONS, balances=False) == []


def test_the_probe_tells_about_this_machine():
    done = subprocess.run(["sh", str(PROBE)], capture_output=True, encoding="utf-8", check=True)
    assert done.stderr == ""
    facts = node.parse(done.stdout)
    assert (
        facts["kernel"]
        == subprocess.run(["uname", "-r"], capture_output=True, encoding="utf-8", check=True).stdout.strip()
    )
    assert {device["name"] for device in facts["device"]} >= {"lo"}
    assert facts["python"].startswith("3.")
    assert [part.isdigit() for part in facts["local_ports"].split()] == [True, True]


ROUTES = """\
device bond0 - up 1500
lower bond0 eth0
lower bond0 eth1
route 10.1.0.1 10.1.0.1 via 10.0.0.1 dev eth0 src 10.0.0.2 uid 0 \\    cache expires 590sec mtu 1400
route 10.1.0.2 10.1.0.2 dev eth1 src 10.0.0.2 uid 0 \\    cache
route 10.1.0.3 10.1.0.3 dev eth0 mtu lock 1300 uid 0
route 10.0.0.2 local 10.0.0.2 dev lo src 10.0.0.2 uid 0
route 10.1.0.4 unreachable 10.1.0.4
"""


def test_ways_to_backends():
    found = node.ways(node.parse(GOOD + ROUTES), OPTIONS)
    assert found["routes"] == {"10.1.0.1": ["eth0", 1400], "10.1.0.2": ["eth1", 9000], "10.1.0.3": ["eth0", 1300]}
    assert found["receiving"] == {"eth0": 1500}
    assert found["devices"] == {"eth0": ["virtio_net", 1500, []]}


def test_ways_of_the_devices_that_are_named():
    found = node.ways(node.parse(GOOD + ROUTES), {**OPTIONS, "devices": ["bond+"]})
    assert found["receiving"] == {"bond0": 1500}
    assert found["devices"] == {
        "bond0": ["", 1500, ["eth0", "eth1"]],
        "eth0": ["virtio_net", 1500, []],
        "eth1": ["virtio_net", 9000, []],
    }
