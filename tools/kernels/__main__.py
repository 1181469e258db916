"""`python3 -m tools.kernels [VERSION...]`: run the tests under these kernels, all by default; as root, from the top.

With `--write`, docs/kernels.md is written from what was measured; without, it has to be what was measured.
The last line counts, as pytest's does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.kernels import guest, packages, results, table
from tools.kernels.packages import Image
from tools.kernels.results import Results
from tools.kernels.system import KernelsError, tell
from tools.kernels.versions import KERNELS, Kernel

BUILD = Path("build/kernels")
EVIDENCE = Path("build/evidence")
PAGE = Path("docs/kernels.md")
SECONDS = 1200
"""After these a guest is taken to hang."""
AT_ONCE = 2

TESTS = ("tests/kernels", "tests/unit/kernel", "tests/netns", "tests/bpf")
_LOADS = "tests/bpf/test_loading.py::test_loads_under_every_combination"
LEFT_OUT = (
    # The table's size is a constant to the verifier: it makes no difference but at the ends.
    *(f"{_LOADS}[{size}]" for size in (509, 1021, 2039, 4093, 8191, 32749, 65521)),
    # Thousands of random frames try the program, not the kernel.
    "tests/bpf/test_malformed.py::test_mutated",
    "tests/bpf/test_malformed.py::test_noise",
    "tests/bpf/test_malformed.py::test_random_headers_to_the_vip",
    "tests/bpf/test_slots.py::test_slot_is_the_oracles[seeds1",
)
"""The same on every kernel, and slow without hardware virtualization."""


def command(kernel: Kernel) -> tuple[str, ...]:
    """What runs in the guest."""
    return (
        *("env", f"DATAPATH_TEST_KERNEL={kernel.version}", "HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis"),
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp=/run/pytest", "--durations=25"),
        f"--junitxml=/run/results/{results.REPORT}",
        *(f"--deselect={test}" for test in LEFT_OUT),
        *TESTS,
    )


def test(image: Image, seconds: float) -> Results:
    """Boot a kernel and test under it."""
    version = image.kernel.version
    began = time.monotonic()
    directory = (BUILD / f"results-{version}").resolve()
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    tell(f"{version} ({image.release}) boots")
    ended = guest.run(image, directory, command(image.kernel), seconds)
    found = results.read(directory, ended)
    counted = f"{found.passed} passed, {len(found.failures)} failed, {found.skipped} skipped"
    tell(f"{version}: {counted} in {time.monotonic() - began:.0f} s")
    evidence = EVIDENCE / f"kernels-{version}"
    shutil.rmtree(evidence, ignore_errors=True)
    if found.failures:
        shutil.copytree(directory, evidence)
        for name in found.failures:
            tell(f"{version}: FAILED {name}")
        tell(f"{version}: console.log and output.log are in {evidence}")
    return found


def check_page(measured: Mapping[Kernel, Mapping[str, bool]], write: bool) -> bool:
    """Whether docs/kernels.md is what was measured; it is afterwards, with `write`."""
    page = table.render(measured)
    if write:
        PAGE.write_text(page)
    if PAGE.exists() and PAGE.read_text() == page:
        return True
    (EVIDENCE / PAGE.name).write_text(page)
    tell(f"FAILED {PAGE} is not what was measured ({EVIDENCE / PAGE.name}): python3 -m tools.kernels --write")
    return False


def test_all(chosen: Sequence[Kernel], write: bool, at_once: int, seconds: float) -> int:
    """Test under the kernels; returns the exit code."""
    images = packages.ensure(BUILD.resolve(), chosen)
    with ThreadPoolExecutor(at_once) as pool:
        found = dict(zip(chosen, pool.map(lambda image: test(image, seconds), images)))
    passed = sum(one.passed for one in found.values())
    failed = sum(len(one.failures) for one in found.values())
    if set(chosen) == set(KERNELS):
        current = check_page({kernel: one.features for kernel, one in found.items()}, write)
        passed, failed = passed + current, failed + (not current)
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0)


def main() -> int:
    """Entry point; exit code 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.kernels", description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(k.version for k in KERNELS))
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="guests that run at the same time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which a guest is taken to hang")
    arguments = parser.parse_args()
    unknown = set(arguments.versions) - {kernel.version for kernel in KERNELS}
    if unknown:
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("must run as root: what the guest does as root it does with this user's view of the machine")
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    chosen = [kernel for kernel in KERNELS if not arguments.versions or kernel.version in arguments.versions]
    try:
        return test_all(chosen, arguments.write, arguments.at_once, arguments.seconds)
    except KernelsError as error:
        tell(str(error))
        print("0 passed, 1 failed", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
