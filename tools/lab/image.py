"""The tree that all nodes are overlays of: built once by debootstrap, named after its recipe.

What the lab adds of its own (`files/`) is written into each node's overlay, so a change there needs no new image.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from tools.lab.system import LabError, run, tell
from tools.lab.topology import Layout

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "bind9-dnsutils",
    "bpftool",
    "curl",
    "dbus",
    "dnsmasq-base",
    "etcd-client",
    "etcd-server",
    "ethtool",
    "iperf3",
    "iproute2",
    "iputils-ping",
    "kmod",
    "nftables",
    "nginx-light",
    "openssh-server",
    "procps",
    "python3",
    "systemd",
    "systemd-sysv",
    "tcpdump",
)
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "etcd.service",
    "fstrim.timer",
    "nginx.service",
)
"""Units that only cost time in a lab, or that run with other settings (nginx: the lab's, etcd: those of its role)."""


def recipe() -> str:
    """Hash over everything that decides what the image holds: this file."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]


def tree(layout: Layout) -> Path:
    """Where the image of the present recipe is, or will be."""
    return layout.images / recipe()


def build(layout: Layout) -> bool:
    """Make the image exist; True when it was built now. About a minute, 350 MB."""
    target = tree(layout)
    if target.is_dir():
        return False
    tell(f"building the node image with debootstrap (once; log: {layout.log})")
    layout.images.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    _debootstrap(partial, layout.log)
    _configure(partial)
    partial.rename(target)
    for old in layout.images.iterdir():
        if old != target:
            shutil.rmtree(old)
    return True


def _debootstrap(target: Path, log: Path) -> None:
    mirror = os.environ.get("LAB_MIRROR", MIRROR)
    command = ("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(target), mirror)
    try:
        run(*command, log=log)
    except LabError:
        tell("debootstrap failed; once more, mirrors have bad moments")
        shutil.rmtree(target, ignore_errors=True)
        run(*command, log=log)


def _configure(root: Path) -> None:
    units = root / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    for key in (root / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    for archive in (root / "var/cache/apt/archives").glob("*.deb"):
        archive.unlink()
    (root / "etc/systemd/system/default.target").unlink(missing_ok=True)
    (root / "etc/systemd/system/default.target").symlink_to("/lib/systemd/system/multi-user.target")
