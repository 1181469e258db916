"""`python3 -m tools.kernels.tracing`: test under Debian's kernel with its headers what bcc compiles on a node.

And, in the same guest, what this machine's kernel may lack and that one has: VLAN devices, and qdisc fq, with BBR.

The last line counts, as pytest's does.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from tools.kernels import guest, packages, results
from tools.kernels.packages import Image
from tools.kernels.system import KernelsError, run, tell
from tools.kernels.versions import KERNELS

BUILD = Path("build/kernels")
EVIDENCE = Path("build/evidence/tracing")
VERSION = "6.1"
SECONDS = 2400
"""After these the guest is taken to hang."""
PYTHON = "/usr/bin/python3"
"""The distribution's, which nodes run the executor on: it alone has bcc."""
TESTS = (
    "tests/tracing",
    "tests/netns/test_vlan.py::test_vlans_below_and_above[tagged-snat-4]",
    "tests/unit/kernel/test_bandwidth.py::test_fq_is_read_back_healed_and_removed",
    "tests/unit/kernel/test_bandwidth.py::test_mq_has_fq_at_every_queue",
    "tests/unit/kernel/test_bandwidth.py::test_a_flood_has_its_rate",
    "tests/unit/kernel/test_bandwidth.py::test_fq_paces_bbr_of_the_container_where_the_programs_route",
    "tests/integration/test_bandwidth.py::test_the_manager",
    "tests/integration/test_bandwidth.py::test_routed_by_the_programs",
    "tests/integration/test_bandwidth.py::test_bbr_of_all",
    "tests/integration/test_bandwidth.py::test_bbr_of_the_host_alone",
    "tests/integration/test_bandwidth.py::test_an_endpoint_that_comes_later",
    "tests/integration/test_bandwidth.py::test_somebody_s_qdisc_is_left",
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
    (kernel,) = (each for each in KERNELS if each.version == VERSION)
    root = BUILD.resolve()
    (image,) = packages.ensure(root, (kernel,))
    directory = root / "results-tracing"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    began = time.monotonic()
    command = (
        *(str(SCRIPT), str(headers(root, image))),
        *("env", "DATAPATH_TEST_TRACING=1", sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
        *("--basetemp=/run/pytest", f"--junitxml=/run/results/{results.REPORT}", *TESTS),
    )
    tell(f"{VERSION} ({image.release}) boots")
    ended = guest.run(image, directory, command, SECONDS)
    found = results.read(directory, ended)
    tell(f"{VERSION}: done after {time.monotonic() - began:.0f} s")
    shutil.rmtree(EVIDENCE, ignore_errors=True)
    if found.failures:
        shutil.copytree(directory, EVIDENCE)
        tell(f"FAILED {', '.join(found.failures)}: console.log and output.log are in {EVIDENCE}")
    # What is skipped here is tested nowhere.
    failed = len(found.failures) + found.skipped
    print(f"{found.passed} passed, {failed} failed", flush=True)
    return int(failed > 0 or not found.passed)


def main() -> int:
    """Entry point; exit code 1 when something failed."""
    try:
        run(PYTHON, "-c", "import bcc")
        return test()
    except KernelsError as error:
        tell(str(error))
        print("0 passed, 1 failed", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
