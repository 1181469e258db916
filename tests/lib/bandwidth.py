"""The lab of inventories/lab_bandwidth, as molecule/bandwidth uses it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

from lib import lab

INVENTORY = "inventories/lab_bandwidth"


def module(node: str, name: str, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run a module of the collection on a node; what it returned, also where it failed."""
    command = ["ansible", "-i", INVENTORY, node, "-m", f"ebpf.datapath.{name}", "-a", json.dumps(arguments)]
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_FORCE_COLOR": "0",
        "PY_COLORS": "0",
    }
    done = subprocess.run(
        [*command, *(["--check"] if check else [])],
        cwd=lab.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    head = re.search(rf"^{node} \| (\w+)!? => ", done.stdout, re.MULTILINE)
    assert head, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout[head.end() :])
    # The command leaves that key out.
    return {**result, "failed": head.group(1) == "FAILED"}


def served() -> bool:
    """Whether a request to the VIP is answered by the backend behind it."""
    return lab.run("router", "curl", "--silent", "--max-time", "5", f"http://{lab.VIP4}/").out.startswith("host1")
