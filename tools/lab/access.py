"""The running lab, as tests and the demo use it: commands on nodes, the product's answers, load from the client."""

from __future__ import annotations

import json
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from tools.lab.system import LabError

ROOT = Path(__file__).resolve().parents[2]
SSH = ROOT / "build/lab/ssh"
LOAD = ("python3", "/usr/local/lib/lab/load.py")

VIP4 = "192.0.2.10"
VIP6 = "2001:db8:0:ff::10"
TCP4, TCP6 = f"tcp:{VIP4}:80", f"tcp:[{VIP6}]:80"
UDP4, UDP6 = f"udp:{VIP4}:53", f"udp:[{VIP6}]:53"
TARGETS = (TCP4, TCP6, UDP4, UDP6)
"""The services of inventories/lab, as load.py names them."""
LOAD_BALANCERS = ("lb1", "lb2")
BACKENDS = ("be1", "be2", "be3")
SNAT = {
    "lb1": {"198.18.11.10", "2001:db8:0:11::10"},
    "lb2": {"198.18.12.10", "2001:db8:0:12::10"},
}
"""Load balancer -> the addresses that backends see it under."""


@dataclass(frozen=True)
class Result:
    """What a command on a node said."""

    code: int
    out: str
    err: str


def run(node: str, *command: str, stdin: Optional[str] = None, check: bool = True, timeout: float = 120) -> Result:
    """Run a command on a node; with `check`, `LabError` tells what it said when it fails."""
    process = subprocess.run(
        (SSH, node, shlex.join(command)), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
    )
    result = Result(process.returncode, process.stdout, process.stderr)
    if check and result.code != 0:
        raise LabError(f"{node}: {shlex.join(command)}: code {result.code}\n{result.out}\n{result.err}")
    return result


def shell(node: str, script: str) -> str:
    """Run a shell script on a node; returns its standard output."""
    return run(node, "sh", "-euc", script).out


def datapath(node: str, *command: str, stdin: Optional[str] = None, code: int = 0) -> Any:
    """Run the product's command with `-o json`; returns the document. `LabError` for another exit code than `code`."""
    result = run(node, "datapath", *command, "-o", "json", stdin=stdin, check=False)
    if result.code != code:
        raise LabError(f"{node}: datapath {shlex.join(command)}: code {result.code}\n{result.out}\n{result.err}")
    return json.loads(result.out)


def unhealthy(node: str) -> set[str]:
    """The backends (address and port) that a load balancer has found to be down."""
    services = datapath(node, "service", "list")["services"]
    return {row["backend"] for service in services for row in service["backends"] if row["health"] == "unhealthy"}


class Load:
    """Requests that go on while the block does something to the nodes; `report` afterwards tells what came of them."""

    report: dict[str, Any]

    def __init__(self, *arguments: str, node: str = "client") -> None:
        self._node = node
        self._command = shlex.join((*LOAD, "--until-eof", *arguments))

    def __enter__(self) -> Load:
        self._process = subprocess.Popen(
            (SSH, self._node, self._command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def wait_until_kept(self) -> None:
        """Until all connections of `--keep` are open and have carried a request."""
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        if line.strip() != "kept":
            raise LabError(f"{self._node}: {self._command}: {line}{self._process.stderr.read()}")

    def __exit__(self, *_: object) -> None:
        out, err = self._process.communicate(timeout=60)
        if self._process.returncode not in (0, 1):
            raise LabError(f"{self._node}: {self._command}: {err}")
        self.report = json.loads(out)


def load(*arguments: Union[str, int], node: str = "client") -> dict[str, Any]:
    """Run load.py on the client to its end; what it reports, target -> counts."""
    result = run(node, *LOAD, *map(str, arguments), check=False)
    if result.code not in (0, 1):
        raise LabError(f"{node}: load.py: {result.err}")
    report: dict[str, Any] = json.loads(result.out)
    return report


def curl(host: str, count: int) -> dict[str, int]:
    """Fetch `http://host/` from the client `count` times, each over a connection of its own; backend -> answers."""
    said = run(
        "client",
        *("curl", "--silent", "--show-error", "--globoff", "--parallel", "--parallel-max", "50"),
        *("--header", "Connection: close", "--config", "-"),
        stdin=f'url = "http://{host}/"\n' * count,
    )
    answers: dict[str, int] = {}
    for line in said.out.splitlines():
        backend = line.split()[0]
        answers[backend] = answers.get(backend, 0) + 1
    return answers
