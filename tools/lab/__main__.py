"""`python3 -m tools.lab up|down|leftovers`, run from the top of the checkout as root.

`up` reads the topology as JSON from standard input. Standard output is one JSON document,
`{"changed": bool, "actions": [text]}`; progress goes to standard error.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import sys
from pathlib import Path

from tools.lab import image, keys, network, nodes
from tools.lab.system import LabError, require_tools, tell
from tools.lab.topology import Layout, parse

OWNER = Path("/run/datapath-lab")
"""Link to the folder of the lab that exists: names on the host allow for one."""


def up(layout: Layout) -> list[str]:
    """Make the lab exist and run."""
    topology = parse(json.load(sys.stdin))
    require_tools()
    _claim(layout)
    done = ["image built"] if image.build(layout) else []
    done += keys.ensure(layout, topology.nodes)
    done += network.ensure(layout, topology)
    done += nodes.ensure(layout, topology.nodes)
    return done


def down(layout: Layout) -> list[str]:
    """Remove the lab but its image and keys, so that the next one is up quickly."""
    if not OWNER.is_symlink() and not leftovers(layout):
        return []
    _claim(layout)
    done = nodes.stop(layout) + network.remove()
    OWNER.unlink(missing_ok=True)
    return done


def leftovers(layout: Layout) -> list[str]:
    """Everything of a lab that this host still has."""
    return [
        *(f"process group {name}" for name in nodes.running()),
        *(f"mount {mount}" for mount in nodes.mounts(layout)),
        *(f"namespace {name}" for name in network.namespaces()),
        *(f"link {name}" for name in network.host_links()),
    ]


def _claim(layout: Layout) -> None:
    if OWNER.is_symlink() and OWNER.readlink() != layout.root and nodes.running():
        raise LabError(f"another lab is up: {OWNER.readlink()}; destroy that one first")
    OWNER.unlink(missing_ok=True)
    OWNER.symlink_to(layout.root)


def main() -> int:
    """Entry point; exit code 1 with a message on standard error when it fails."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.lab", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "leftovers"))
    parser.add_argument("--directory", type=Path, default=Path("build/lab"), help="where the lab keeps its files")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        tell("must run as root: it makes network namespaces and boots containers")
        return 1
    layout = Layout(arguments.directory.resolve())
    layout.root.mkdir(parents=True, exist_ok=True)
    with (layout.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            actions = {"up": up, "down": down, "leftovers": leftovers}[arguments.command](layout)
        except LabError as error:
            tell(str(error))
            return 1
    print(json.dumps({"changed": bool(actions), "actions": actions}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
