"""Network namespaces, veth pairs and a bpffs for tests; everything ends with the test.

A namespace is held by a file descriptor only, so a killed test leaves nothing behind.
"""

import ctypes
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from datapath.kernel import abi, libbpf
from datapath.kernel.abi import AttachType, ProgramType

_CLONE_NEWNET = 0x40000000
_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
"""r0 = XDP_PASS; exit"""
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(result, what):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def kernel_at_least(*version):
    return tuple(int(part) for part in os.uname().release.split(".")[:2]) >= version


class NetNS:
    """A network namespace. `with ns:` moves the calling thread into it."""

    def __init__(self):
        made = []

        def make():
            _call(_LIBC.unshare(_CLONE_NEWNET), "unshare")
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        maker = threading.Thread(target=make)
        maker.start()
        maker.join()
        self.fd = made[0]
        self._before = []
        self.run("ip link set lo up")

    def __enter__(self):
        self._before.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        _call(_LIBC.setns(self.fd, _CLONE_NEWNET), "setns")
        return self

    def __exit__(self, *_):
        before = self._before.pop()
        _call(_LIBC.setns(before, _CLONE_NEWNET), "setns")
        os.close(before)

    def close(self):
        os.close(self.fd)

    def run(self, command, check=True):
        """Run a command in the namespace; returns its standard output."""
        with self:
            done = subprocess.run(command.split(), check=False, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def start(self, *command, **options):
        """Start a process in the namespace."""
        with self:
            return subprocess.Popen(command, **options)


def veth(left, left_name, right, right_name, offloads=False):
    """A veth pair between two namespaces, up on both sides, able to forward XDP_TX and XDP_REDIRECT.

    With `offloads` it is as the kernel makes it: not for XDP, but TCP's packets stand for many frames.
    """
    # iproute2 takes a namespace by name or by process only: the peer is born under a passing name and moved.
    holder = right.start("sleep", "60")
    try:
        left.run(f"ip link add {left_name} type veth peer name {right_name}-p")
        left.run(f"ip link set {right_name}-p netns {holder.pid} name {right_name}")
    finally:
        holder.kill()
        holder.wait()
    for namespace, name in ((left, left_name), (right, right_name)):
        namespace.run(f"ip link set {name} up")
        if not offloads:
            namespace.run(f"ethtool -K {name} tx off gro on", check=False)


def attach_pass(namespace, device):
    """Attach a program that passes every frame, natively, for as long as the returned link is open.

    The kernel wakes a veth for what its peer sends by XDP_TX only if it carries a program itself; before 5.13 for what
    is redirected to it as well.
    """
    with libbpf.closing(libbpf.program_load(ProgramType.XDP, _PASS)) as program, namespace:
        index = socket.if_nametoindex(device)
        return libbpf.link_create(program, index, AttachType.XDP, abi.XDP_FLAGS_DRV_MODE)


@contextmanager
def bpffs(directory):
    """A bpffs mounted at `directory`, unmounted at the end."""
    directory.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)


def wait_for(condition, seconds=20.0, what="the condition"):
    """Poll `condition` until it is true; returns its value. Who promises less time says how much."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        time.sleep(0.01)


def slowness():
    """How many times slower than a plain machine this one is, at least 1: emulated ones take part in tests too."""
    started = time.perf_counter()
    sum(number & 1 for number in range(200_000))
    return max(1.0, (time.perf_counter() - started) / 0.02)


def compile_object(source: Path, directory: Path):
    """Compile a test's eBPF program; returns the path of the object.

    Where DATAPATH_TEST_OBJECTS names a directory, objects are taken from there and left there, by what their source
    holds: in an emulated guest the compiler takes a minute.
    """
    target = directory / f"{source.name.split('.')[0]}.o"
    shelf = os.environ.get("DATAPATH_TEST_OBJECTS")
    if shelf is None:
        return _compiled(source, target)
    kept = Path(shelf) / f"{hashlib.sha256(source.read_bytes()).hexdigest()}.o"
    if not kept.exists():
        _compiled(source, kept)
    shutil.copy(kept, target)
    return target


def _compiled(source: Path, target: Path):
    include = f"/usr/include/{os.uname().machine}-linux-gnu"
    command = ["clang", "-O2", "-g", "-target", "bpf", "-I", include, "-c", source, "-o", target]
    subprocess.run(command, check=True)
    return target
