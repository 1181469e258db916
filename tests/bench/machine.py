"""What the figures were measured on, and how busy it was."""

import os
import platform
import re
import subprocess
from pathlib import Path

_VULNERABILITIES = Path("/sys/devices/system/cpu/vulnerabilities")
_STEAL = 7
"""Field of /proc/stat's `cpu` lines, counted from the first number."""


def facts():
    """Name -> what the machine is."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*: (.*)", cpuinfo)
    family = re.search(r"cpu family\s*: (.*)", cpuinfo)
    virtual = " (virtual machine)" if re.search(r"^flags.*\bhypervisor\b", cpuinfo, re.MULTILINE) else ""
    clang = subprocess.run(("clang", "--version"), check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return {
        "cpu": (model.group(1) if model else platform.machine())
        + (f", family {family.group(1)}" if family else "")
        + virtual,
        "cpus": str(os.cpu_count()),
        "kernel": platform.release(),
        "mitigations": "; ".join(_mitigations()) or "none",
        "bpf jit": ", ".join(f"{name} {_sysctl(name)}" for name in ("bpf_jit_enable", "bpf_jit_harden")),
        "compiler": clang,
        "python": platform.python_version(),
    }


def _mitigations():
    for path in sorted(_VULNERABILITIES.glob("*")):
        text = path.read_text().strip()
        if text != "Not affected":
            yield f"{path.name}: {text}"


def _sysctl(name):
    path = Path("/proc/sys/net/core") / name
    return path.read_text().strip() if path.exists() else "?"


class Busy:
    """How much the CPUs did for others while this ran."""

    def __init__(self):
        self._before = _times()
        self._own = sum(os.times()[:4])

    def sentence(self):
        """Shares of all CPUs' time since the beginning."""
        spent = [after - before for before, after in zip(self._before, _times())]
        total = sum(spent) or 1
        tick = os.sysconf("SC_CLK_TCK")
        own = (sum(os.times()[:4]) - self._own) * tick
        idle = spent[3] + spent[4]
        others = max(0.0, total - idle - spent[_STEAL] - own)
        load = os.getloadavg()[0]
        return (
            f"{others / total:.0%} of all CPU time went to other processes, {spent[_STEAL] / total:.1%} to the"
            f" hypervisor; load {load:.1f} at the end"
        )


def _times():
    return [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
