"""`python3 -m tools.kernels.tracing`: test under Debian's kernel with its headers what bcc compiles on a node.

And, in the same guest, what this machine's kernel may lack and that one has: VLAN devices.

The last line counts, as pytest's does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.kernels import packages, stage
from tools.kernels.packages import Image
from tools.kernels.system import run
from tools.kernels.versions import KERNELS

VERSION = "6.1"
SECONDS = 2400
"""After these the guest is taken to hang."""
PYTHON = "/usr/bin/python3"
"""The distribution's, which nodes run the executor on: it alone has bcc."""
TESTS = (
    "tests/tracing",
    "tests/netns/test_vlan.py::test_vlans_below_and_above[tagged-snat-4]",
)
SCRIPT = Path(__file__).parent / "tracing.sh"


def headers(root: Path, image: Image) -> Path:
    """The headers of the kernel, unpacked; fetched where they are not there yet."""
    tree = root / f"headers-{image.release}"
    if tree.exists():
        return tree
    common = image.release.rpartition("-")[0] + "-common"
    names = (f"linux-headers-{image.release}", f"linux-headers-{common}", f"linux-kbuild-{image.kernel.version}")
    packages.download(root, image.kernel, names, tree)
    return tree


def test() -> int:
    """Boot and test; returns the exit code."""
    run(PYTHON, "-c", "import bcc")
    (kernel,) = (each for each in KERNELS if each.version == VERSION)
    root = stage.BUILD.resolve()
    (image,) = packages.ensure(root, (kernel,))
    stage.collect(*TESTS)
    command = (
        *(str(SCRIPT), str(headers(root, image))),
        *("env", "DATAPATH_TEST_TRACING=1", *stage.in_guest(*TESTS)),
    )
    return stage.count([stage.run("tracing", image, command, SECONDS)])


if __name__ == "__main__":
    sys.exit(stage.main(test))
