"""The lab's nodes: an overlay of the image each, booted by systemd-nspawn in a control group of its own.

The control group is how a node is found again: nobody remembers process ids. nspawn neither registers with machined
nor needs systemd on the host.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Optional

from tools.lab import image, keys
from tools.lab.system import LabError, run, tell, wait_until, write_if_changed
from tools.lab.topology import PREFIX, Layout, Node

FILES = Path(__file__).parent / "files"
UNITS = ("lab-bpffs.service",)
"""Of `FILES`, those that run on every node."""
GROUP = "datapath-lab"
_RESTART = 'while "$@"; test $? = 133; do :; done'
"""nspawn ends with 133 when its node reboots and it has no unit that would start it again."""
_BOOT_SECONDS = 120.0
_STOP_SECONDS = 45.0


def ensure(layout: Layout, nodes: Iterable[Node]) -> list[str]:
    """Make every node run and answer; returns what had to be done, in words. Nodes boot beside each other."""
    done = []
    booted = {}
    for node in nodes:
        done += _ensure_tree(layout, node)
        if not supervisor(node.name):
            booted[node.name] = _boot(layout, node)
            done.append(f"{node.name}: booted")
    if booted:
        tell(f"booting {' '.join(booted)}")
    for name, process in booted.items():
        _wait_until_ready(layout, name, process)
    return done


def stop(layout: Layout) -> list[str]:
    """Shut all nodes down, unmount and delete their trees; returns what was removed."""
    names = running()
    for pid in filter(None, map(supervisor, names)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not wait_until(lambda: not running(), _STOP_SECONDS):
        tell(f"killing {' '.join(running())}: not down after {_STOP_SECONDS:.0f} seconds")
        (_unified() / "cgroup.kill").write_text("1")
        if not wait_until(lambda: not running(), 10):
            raise LabError(f"cannot stop {' '.join(running())}")
    for name in names:
        shutil.rmtree(Path("/run/systemd/nspawn/propagate") / (PREFIX + name), ignore_errors=True)
    done = [f"{name}: stopped" for name in names]
    for mount in mounts(layout):
        run("umount", mount)
        done.append(f"mount {mount}")
    if layout.nodes.exists():
        shutil.rmtree(layout.nodes)
        done.append(f"trees in {layout.nodes}")
    for root in _hierarchies():
        # A control group's files go with it: what has to be removed are the directories, innermost first.
        for folder, _, _ in os.walk(root / GROUP, topdown=False):
            Path(folder).rmdir()
    return done


def running() -> list[str]:
    """Names of the nodes that have processes."""
    found = []
    for events in sorted(_unified().glob("*/cgroup.events")):
        with suppress(OSError):  # the kernel refuses to read of a group that goes away under the reader
            if "populated 1" in events.read_text():
                found.append(events.parent.name)
    return found


def supervisor(name: str) -> Optional[int]:
    """Process id of a node's systemd-nspawn, None when the node is down."""
    # nspawn moves itself there once it has set the node up; before that it is in the node's own group.
    for place in ("supervisor", "."):
        with suppress(OSError):
            pids = (_unified() / name / place / "cgroup.procs").read_text().split()
            if pids:
                return int(pids[0])
    return None


def mounts(layout: Layout) -> list[str]:
    """Mount points below the lab's folder, innermost first."""
    prefix = f"{layout.nodes}/"
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted((point for point in points if point.startswith(prefix)), reverse=True)


def _hierarchies() -> list[Path]:
    """Mount points of the control group hierarchies of systemd: the unified one, then its own where it has one."""
    rows = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    unified = [Path(row[1]) for row in rows if row[2] == "cgroup2"]
    named = [Path(row[1]) for row in rows if row[2] == "cgroup" and "name=systemd" in row[3].split(",")]
    if not unified:
        raise LabError("no cgroup2 file system is mounted on this host")
    return unified[:1] + named[:1]


def _unified() -> Path:
    return _hierarchies()[0] / GROUP


def _ensure_tree(layout: Layout, node: Node) -> list[str]:
    base = layout.nodes / node.name
    root = base / "root"
    done = []
    if str(root) not in mounts(layout):
        for part in ("upper", "work", "root"):
            (base / part).mkdir(parents=True, exist_ok=True)
        options = f"lowerdir={image.tree(layout)},upperdir={base}/upper,workdir={base}/work"
        run("mount", "-t", "overlay", PREFIX + node.name, "-o", options, str(root))
        done.append(f"{node.name}: tree mounted")
    machine_id = root / "etc/machine-id"
    if len(machine_id.read_text().strip() if machine_id.exists() else "") != 32 or done:
        write_if_changed(machine_id, uuid.uuid4().hex + "\n", 0o444)
    files = {
        "etc/hostname": (f"{node.name}\n", 0o644),
        "etc/hosts": (f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {node.name}\n", 0o644),
        "root/.ssh/authorized_keys": (keys.public(layout.login_key), 0o600),
        "etc/ssh/ssh_host_ed25519_key": (keys.host_key(layout, node).read_text(), 0o600),
        "etc/ssh/ssh_host_ed25519_key.pub": (keys.public(keys.host_key(layout, node)), 0o644),
    }
    files |= {
        str(path.relative_to(FILES)): (path.read_text(), path.stat().st_mode & 0o755)
        for path in FILES.rglob("*")
        if path.is_file()
    }
    done += [
        f"{node.name}: /{path}"
        for path, (content, mode) in files.items()
        if write_if_changed(root / path, content, mode)
    ]
    done += [f"{node.name}: unit {unit}" for unit in (*UNITS, *node.units) if _enable(root, unit)]
    return done


def _enable(root: Path, unit: str) -> bool:
    """Enable a unit in a tree as `systemctl enable` would; True when it was not."""
    link = root / "etc/systemd/system/multi-user.target.wants" / unit
    if link.is_symlink():
        return False
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"/etc/systemd/system/{unit}")
    return True


def _boot(layout: Layout, node: Node) -> subprocess.Popen[bytes]:
    groups = [root / GROUP / node.name for root in _hierarchies()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
    enter = "".join(f"echo $$ > {group}/cgroup.procs; " for group in groups)
    command = (
        "systemd-nspawn",
        "--boot",
        f"--directory={layout.nodes / node.name / 'root'}",
        f"--machine={node.namespace}",
        f"--hostname={node.name}",
        f"--network-namespace-path=/run/netns/{node.namespace}",
        "--capability=all",
        "--system-call-filter=bpf perf_event_open",
        "--register=no",
        "--keep-unit",
        "--settings=no",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
    )
    environment = {
        **os.environ,
        # A node sees cgroup v2 alone, whatever the host has, and may set what belongs to its own network.
        "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
    }
    with (layout.nodes / node.name / "console.log").open("a") as console:
        return subprocess.Popen(
            ("sh", "-c", enter + _RESTART, "sh", *command),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            env=environment,
            cwd="/",
        )


def _wait_until_ready(layout: Layout, name: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the node's systemd has started everything and a login works."""
    login = (str(layout.ssh), name)

    def answers() -> bool:
        if process.poll() is not None:
            raise LabError(f"{name} is down again; its console: {layout.nodes / name / 'console.log'}")
        return run(*login, "systemctl", "is-system-running", "--wait", check=False).strip() == "running"

    if not wait_until(answers, _BOOT_SECONDS, interval=0.3):
        failed = run(*login, "systemctl", "--failed", "--no-legend", check=False).strip()
        raise LabError(f"{name} is not ready after {_BOOT_SECONDS:.0f} seconds; failed units: {failed or 'none'}")
