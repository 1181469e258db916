"""Where things are pinned, and the bpffs beneath."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_BPFFS_MAGIC = 0xCAFE4A11


@dataclass(frozen=True)
class Pins:
    """Paths below one directory of a bpffs.

    A bpffs refuses names with a dot, so device names are written with `~` in its place.
    """

    root: Path

    @property
    def maps(self) -> Path:
        """The load balancer's maps."""
        return self.root / "maps"

    @property
    def staged(self) -> Path:
        """Maps and program that are about to take the place of those in service; empty between two applies."""
        return self.root / "staged"

    @property
    def links(self) -> Path:
        """`xdp_<device>` of the load balancer, `program_<name>` of users' programs, `tc_...` of our own at tc."""
        return self.root / "links"

    @property
    def programs(self) -> Path:
        """Users' programs; a symbolic link where the user chose another place."""
        return self.root / "programs"

    @property
    def load_balancer(self) -> Path:
        """The load balancer's program."""
        return self.root / "xdp_lb"

    def load_balancer_link(self, device: str) -> Path:
        """The load balancer's link on `device`."""
        return self.links / f"xdp_{device.replace('.', '~')}"

    def load_balancer_links(self) -> list[Path]:
        """All links of the load balancer."""
        return sorted(self.links.glob("xdp_*"))

    @property
    def tc_load_balancer(self) -> Path:
        """The load balancer's program where it runs at tc."""
        return self.root / "tc_lb"

    def tc_link(self, name: str, direction: str, device: str) -> Path:
        """The link of one of our own programs at tc."""
        return self.links / f"{name}_{direction}_{device.replace('.', '~')}"

    def tc_links(self, name: str, directions: Iterable[str]) -> list[tuple[str, Path]]:
        """All links of that program, each with its direction."""
        return [(each, pin) for each in directions for pin in sorted(self.links.glob(f"{name}_{each}_*"))]

    def program(self, name: str) -> Path:
        """A user's program."""
        return self.programs / _component(name)

    def program_link(self, name: str) -> Path:
        """A user's program's link."""
        return self.links / f"program_{_component(name)}"

    def create(self) -> None:
        """Make the directories, on a bpffs.

        Raises:
            OSError: the directory is on no bpffs and none may be mounted from here.
        """
        ensure_bpffs(self.root)
        for directory in (self.maps, self.staged, self.links, self.programs):
            directory.mkdir(parents=True, exist_ok=True)

    def remove_empty(self) -> None:
        """Remove the directories that hold nothing."""
        for directory in (self.maps, self.staged, self.links, self.programs, self.root):
            with contextlib.suppress(FileNotFoundError):
                if not any(directory.iterdir()):
                    directory.rmdir()


def _component(name: str) -> str:
    if not name or "/" in name:
        raise ValueError(f"{name!r} cannot be pinned: a name has no '/' and is not empty")
    return name.replace(".", "~")


def unpin(path: Path) -> None:
    """Remove a pin (or a symbolic link to one) if it is there."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def is_bpffs(path: Path) -> bool:
    """Whether `path` (which exists) lies on a bpffs."""
    # struct statfs begins with the magic number in one machine word; 256 bytes hold it on every architecture.
    buffer = (ctypes.c_ulong * 32)()
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), buffer) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return int(buffer[0]) & 0xFFFFFFFF == _BPFFS_MAGIC


def ensure_bpffs(root: Path) -> None:
    """Make sure that `root`, whose parent is a mount point or a directory to become one, will be on a bpffs.

    Mounted here only from the mount namespace of process 1: a mount made inside a service's own namespace would
    take all pins with it when the service stops.
    """
    existing = root
    while not existing.exists():
        existing = existing.parent
    if is_bpffs(existing):
        return
    place = root.parent
    if _root_mounts("self") != _root_mounts("1"):
        raise OSError(errno.ENODEV, f"{place} is no bpffs; mount it: mount -t bpf bpf {place}")
    place.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(place), b"bpf", ctypes.c_ulong(0), b"mode=0700") != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mounting a bpffs at {place}: {os.strerror(number)}")


def _root_mounts(process: str) -> set[str]:
    """Ids of what is mounted at / as a process sees it: ids differ between mount namespaces, even of copies.

    (Reading /proc/1/ns/mnt would need CAP_SYS_PTRACE.)
    """
    try:
        lines = Path(f"/proc/{process}/mountinfo").read_text().splitlines()
    except OSError:
        return set()
    return {fields[0] for fields in map(str.split, lines) if fields[4] == "/"}
