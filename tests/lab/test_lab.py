"""The lab comes up, changes nothing the second time, and leaves the host as it was."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tools.lab.__main__ import OWNER

from lib import lab

LB_NODES = 2


def host() -> dict[str, list[str]]:
    """What a lab could leave on the host, read without the lab's own code."""
    links = json.loads(subprocess.check_output(("ip", "-j", "link")))
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    commands = [path.read_bytes().split(b"\0") for path in Path("/proc").glob("[0-9]*/cmdline")]
    cgroups = [path for root in mounts if root.startswith("/sys/fs/cgroup") for path in Path(root).glob("*lab*")]
    return {
        "links": sorted(link["ifname"] for link in links),
        "mounts": sorted(mounts),
        "namespaces": sorted(path.name for path in Path("/run/netns").glob("*")),
        "routes": subprocess.check_output(("ip", "route", "show", "table", "all"), text=True).splitlines(),
        "containers": sorted(command[-1] for command in commands if command[0].endswith(b"systemd-nspawn")),
        "cgroups": sorted(str(path) for path in cgroups),
        "run": sorted(str(path) for path in Path("/run").glob("datapath-lab*")),
        "propagate": sorted(str(path) for path in Path("/run/systemd/nspawn/propagate").glob("*")),
    }


def added(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    """What is there after and was not before; a lab that was killed earlier may be gone now, which is no fault."""
    extra = {kind: sorted(set(after[kind]) - set(before[kind])) for kind in before}
    return {kind: things for kind, things in extra.items() if things}


def changed(output: str) -> list[int]:
    """The play recap's count of changes, host by host."""
    return [int(number) for number in re.findall(r"changed=(\d+)", output)]


@contextmanager
def another_checkout() -> Iterator[None]:
    """The lab that is up is another checkout's."""
    ours = OWNER.readlink()
    OWNER.unlink()
    OWNER.symlink_to("/another/build/lab")
    try:
        yield
    finally:
        OWNER.unlink()
        OWNER.symlink_to(ours)


@pytest.fixture(scope="module")
def lifetime():
    """The lab's whole life: host before, both runs, what the nodes said, removal twice, host after."""
    removed = lab.playbook("lab", "-e", "lab_state=absent")
    assert removed.returncode == 0, removed.stdout
    said = {"before": host(), "first": lab.playbook("lab"), "second": lab.playbook("lab")}
    try:
        assert said["first"].returncode == 0, said["first"].stdout
        said["systemd"] = {
            node: lab.run(node, "systemctl", "is-system-running").out.strip()
            for node in ("client", "router", *lab.LOAD_BALANCERS, *lab.BACKENDS)
        }
        said["mounts"] = lab.shell("lb1", "findmnt -n -o FSTYPE /sys/fs/bpf; findmnt -n -o FSTYPE /sys/fs/cgroup")
        said["direct"] = lab.load("--count", 50, "tcp:198.18.21.10:8080", "udp:[2001:db8:0:23::10]:8053")
        said["wrong_key"] = subprocess.run(
            (lab.SSH, "-o", "UserKnownHostsFile=/dev/null", "lb1", "true"), capture_output=True, text=True, check=False
        )
        with another_checkout():
            said["another's"] = lab.playbook("lab", "-e", "lab_state=absent")
    finally:
        said["third"] = lab.playbook("lab", "-e", "lab_state=absent")
    said["fourth"] = lab.playbook("lab", "-e", "lab_state=absent")
    said["after"] = host()
    return said


def test_first_run_makes_it(lifetime):
    assert changed(lifetime["first"].stdout) == [1]


def test_second_run_changes_nothing(lifetime):
    assert changed(lifetime["second"].stdout) == [0]


def test_every_node_runs_systemd(lifetime):
    assert set(lifetime["systemd"].values()) == {"running"}


def test_nodes_have_bpffs_and_cgroup2(lifetime):
    assert lifetime["mounts"].split() == ["bpf", "cgroup2"]


def test_client_reaches_backends(lifetime):
    assert lab.failures(lifetime["direct"]) == {}
    assert lifetime["direct"]["tcp:198.18.21.10:8080"]["backends"] == {"be1": 50}
    assert lifetime["direct"]["udp:[2001:db8:0:23::10]:8053"]["backends"] == {"be3": 50}


def test_host_keys_are_checked(lifetime):
    assert lifetime["wrong_key"].returncode != 0
    assert "Host key verification failed" in lifetime["wrong_key"].stderr


def test_another_checkout_s_lab_is_left_alone(lifetime):
    said = lifetime["another's"].stdout
    assert "another lab is up: /another/build/lab; destroy that one first" in said
    assert "JSON" not in said


def test_removal_leaves_nothing(lifetime):
    assert changed(lifetime["third"].stdout) == [1]
    assert added(lifetime["before"], lifetime["after"]) == {}


def test_second_removal_changes_nothing(lifetime):
    assert changed(lifetime["fourth"].stdout) == [0]
