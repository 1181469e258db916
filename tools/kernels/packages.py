"""Kernels from the distribution's mirror, unpacked under build/kernels; the machine's own apt is not involved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.kernels.system import KernelsError, run, tell
from tools.kernels.versions import Kernel

MIRROR = "http://deb.debian.org/debian"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
META_PACKAGE = "linux-image-amd64"
"""The full kernel: the cloud flavour has no 9p, which the guest's root is."""


@dataclass(frozen=True)
class Image:
    """An unpacked kernel."""

    kernel: Kernel
    tree: Path
    """Holds boot/vmlinuz-RELEASE and lib/modules/RELEASE."""

    @property
    def release(self) -> str:
        """What `uname -r` says."""
        (modules,) = (self.tree / "lib" / "modules").iterdir()
        return modules.name

    @property
    def vmlinuz(self) -> Path:
        """What to boot."""
        return self.tree / "boot" / f"vmlinuz-{self.release}"


def ensure(root: Path, kernels: Sequence[Kernel]) -> list[Image]:
    """The kernels, unpacked; fetches those that are not there yet (`make clean` forgets them)."""
    missing = [kernel for kernel in kernels if not _tree(root, kernel).exists()]
    if missing:
        apt = _apt(root / "apt", missing)
        for kernel in missing:
            _fetch(apt, kernel, root)
    return [Image(kernel, _tree(root, kernel)) for kernel in kernels]


def _tree(root: Path, kernel: Kernel) -> Path:
    return root / f"linux-{kernel.version}"


def _apt(directory: Path, kernels: Sequence[Kernel]) -> tuple[str, ...]:
    """Options of an apt with sources, state and cache of its own; its package lists are fetched."""
    for place in ("lists/partial", "archives/partial"):
        (directory / place).mkdir(parents=True, exist_ok=True)
    (directory / "status").touch()
    sources = directory / "sources.list"
    sources.write_text("".join(f"deb [signed-by={KEYRING}] {MIRROR} {kernel.suite} main\n" for kernel in kernels))
    options = {
        "APT::Architecture": "amd64",
        "APT::Sandbox::User": "root",
        "Dir::State": directory,
        "Dir::State::status": directory / "status",
        "Dir::Cache": directory,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferencesparts": "-",
    }
    flags = tuple(f"-o{name}={value}" for name, value in options.items())
    tell(f"fetching package lists of {', '.join(kernel.suite for kernel in kernels)}")
    run("apt-get", *flags, "-qq", "update", attempts=2)
    return flags


def _fetch(apt: tuple[str, ...], kernel: Kernel, root: Path) -> None:
    described = run("apt-cache", *apt, "show", f"{META_PACKAGE}/{kernel.suite}")
    found = re.search(r"^Depends: (linux-image-(\S+))", described, re.MULTILINE)
    if found is None or not found[2].startswith(f"{kernel.version}."):
        raise KernelsError(f"{META_PACKAGE} of {kernel.suite} is not kernel {kernel.version}: {described[:500]}")
    package, release = found[1], found[2]
    tell(f"fetching {package}")
    scratch = root / f"{kernel.version}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    run("apt-get", *apt, "-qq", "download", package, attempts=2, directory=scratch)
    (archive,) = scratch.glob(f"{package}_*.deb")
    tree = scratch / "tree"
    run("dpkg", "-x", str(archive), str(tree))
    run("depmod", "-b", str(tree), release)
    tree.rename(_tree(root, kernel))
    shutil.rmtree(scratch)


def download(root: Path, kernel: Kernel, names: Sequence[str], tree: Path) -> None:
    """Unpack further packages of the kernel's suite as `tree`."""
    apt = _apt(root / "apt-more", (kernel,))
    scratch = root / f"{tree.name}.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    for name in names:
        tell(f"fetching {name}")
        run("apt-get", *apt, "-qq", "download", name, attempts=2, directory=scratch)
    for archive in scratch.glob("*.deb"):
        run("dpkg", "-x", str(archive), str(scratch / "tree"))
    (scratch / "tree").rename(tree)
    shutil.rmtree(scratch)
