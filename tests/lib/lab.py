"""The lab's nodes, as tests use them: what `tools.lab.access` has, captures, playbooks."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.lab.access import (
    BACKENDS,
    LOAD_BALANCERS,
    ROOT,
    SNAT,
    SSH,
    TARGETS,
    TCP4,
    TCP6,
    UDP4,
    UDP6,
    VIP4,
    VIP6,
    Load,
    curl,
    datapath,
    load,
    run,
    shell,
    unhealthy,
)

__all__ = [
    "BACKENDS",
    "LOAD_BALANCERS",
    "ROOT",
    "SNAT",
    "SSH",
    "TARGETS",
    "TCP4",
    "TCP6",
    "UDP4",
    "UDP6",
    "VIP4",
    "VIP6",
    "Load",
    "capture",
    "converge_dsr",
    "curl",
    "datapath",
    "failures",
    "load",
    "playbook",
    "run",
    "shell",
    "unhealthy",
    "wait_until",
]

EVIDENCE = ROOT / "build/evidence"


def failures(report: dict[str, Any]) -> dict[str, list[Any]]:
    """Target -> its failures, only where there are some: `== {}` reads well and shows what happened otherwise."""
    return {target: counts["failures"] for target, counts in report.items() if counts["failed"]}


@contextmanager
def capture(node: str, device: str, expression: str, name: str) -> Iterator[Path]:
    """Capture on a node's device while the block runs; the file is complete when the block has ended."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    path = EVIDENCE / f"{name}-{node}.pcap"
    command = shlex.join(("tcpdump", "-i", device, "-U", "-B", "16384", "-s", "512", "-w", "-", expression))
    with path.open("wb") as stream:
        process = subprocess.Popen((SSH, node, command), stdout=stream, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            while "listening" not in line:
                assert line, f"tcpdump on {node} did not start"
                line = process.stderr.readline()
            yield path
            settle(lambda: path.stat().st_size)
        finally:
            process.terminate()
            process.communicate(timeout=20)


def settle(value: Callable[[], Any], quiet: float = 0.5, seconds: float = 10) -> None:
    """Wait until `value()` has not changed for `quiet` seconds."""
    last, since = value(), time.monotonic()
    deadline = since + seconds
    while time.monotonic() - since < quiet and time.monotonic() < deadline:
        time.sleep(0.05)
        if value() != last:
            last, since = value(), time.monotonic()


def wait_until(condition: Callable[[], Any], seconds: float = 20, interval: float = 0.1) -> Any:
    """Poll until `condition()` is true and return it; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {condition}"
        time.sleep(interval)


def playbook(name: str, *arguments: str, inventory: str = "inventories/lab") -> subprocess.CompletedProcess[str]:
    """Run one of the playbooks against the lab."""
    command: Sequence[str] = ("ansible-playbook", "-i", inventory, f"playbooks/{name}.yml", *arguments)
    # Molecule, which some tests run in, asks for colours.
    environment = {**os.environ, "ANSIBLE_FORCE_COLOR": "0", "PY_COLORS": "0"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)


def converge_dsr(**variables: Any) -> None:
    """Run the cluster's playbook with direct server return, and with these variables over the inventory's."""
    arguments = ("-i", "inventories/lab_dsr", "-e", json.dumps({"cilium_loadbalancer_mode": "dsr", **variables}))
    result = playbook("cluster", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
