"""A guest: one kernel under QEMU (TCG), on this machine's root file system."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tools.kernels.packages import Image
from tools.kernels.system import KernelsError

SCRIPT = Path(__file__).parent / "guest.sh"
CPUS = 1
"""With more, a CPU that QEMU emulates may stumble over code that the guest's kernel is patching on another (static
keys, as of qdiscs and XDP that come and go): `Oops: int3`."""
MEMORY = "1536M"
KERNEL_OPTIONS = (
    # Clearing the 9p transport's buffers for every message would take most of the time.
    "init_on_alloc=0",
    # They cost, and change nothing of what a kernel can do.
    "mitigations=off",
    "panic=-1",
)
_SECOND_ROOT = (
    "-fsdev local,id=cached,path=/,security_model=none,readonly=on,multidevs=remap "
    "-device virtio-9p-pci,fsdev=cached,mount_tag=cached"
)


def run(image: Image, results: Path, command: Sequence[str], seconds: float) -> bool:
    """Boot, run `command` in the guest (see guest.sh), and power off; its exit code says nothing.

    Args:
        image: the kernel.
        results: empty directory that the guest may write to, as /run/results; has console.log afterwards.
        command: run in this process's working directory.
        seconds: after these the guest is killed.

    Returns:
        Whether it ended by itself.

    Raises:
        KernelsError: virtme-ng is not installed.
    """
    virtme = shutil.which("virtme-run")
    if virtme is None:
        raise KernelsError("there is no virtme-run; `make setup` installs virtme-ng into .venv")
    # The kernel's command line has no room for it.
    (results / "command").write_text(f"exec {shlex.join(command)}\n")
    inside = shlex.join((str(SCRIPT), str(image.tree), str(results)))
    boot = (
        *(virtme, "--kimg", str(image.vmlinuz), "--mods", "auto", "--force-9p", "--disable-kvm"),
        *("--cpus", str(CPUS), "--memory", MEMORY, "--show-boot-console", "--pwd", "--rwdir", str(results)),
        *(word for option in KERNEL_OPTIONS for word in ("--kopt", option)),
        *("--script-sh", f"{inside} >{shlex.quote(str(results / 'output.log'))} 2>&1"),
        *("--qemu-opts", *_SECOND_ROOT.split()),
    )
    with (results / "console.log").open("wb") as console:
        process = subprocess.Popen(
            boot, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            _end(process)
    return True


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
