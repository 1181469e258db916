"""The daemon's unit as the kernel sees its process: few capabilities, no way to more, system calls filtered."""

from __future__ import annotations

import pytest

from lib import lab

CAPABILITIES = {12: "NET_ADMIN", 13: "NET_RAW", 21: "SYS_ADMIN", 38: "PERFMON", 39: "BPF"}


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_the_daemon_is_confined(node):
    pid = lab.run(node, "systemctl", "show", "--property=MainPID", "--value", "datapathd").out.strip()
    status = dict(line.split(":", 1) for line in lab.run(node, "cat", f"/proc/{pid}/status").out.splitlines())
    for kind in ("CapBnd", "CapEff", "CapPrm"):
        assert int(status[kind], 16) == sum(1 << number for number in CAPABILITIES), kind
    assert int(status["NoNewPrivs"]) == 1
    assert int(status["Seccomp"]) == 2, "2 is a filter"
    mounts = {
        line.split()[4]: line.split()[5].split(",")
        for line in lab.shell(node, f"cat /proc/{pid}/mountinfo").splitlines()
    }
    assert "ro" in mounts["/"]
    assert "rw" in mounts["/var/lib/datapath"]
    assert "ro" in mounts["/proc/sys"]
    assert "rw" in mounts["/proc/sys/net"]


@pytest.mark.parametrize("node", lab.LOAD_BALANCERS)
def test_systemd_finds_little_exposure(node):
    lab.run(node, "systemd-analyze", "--no-pager", "--threshold=35", "security", "datapathd.service")
