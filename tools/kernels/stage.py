"""What the stages that test in guests have in common: a guest that runs pytest, and the counting of what it found."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tools.kernels import guest, results
from tools.kernels.packages import Image
from tools.kernels.results import Results
from tools.kernels.system import KernelsError, tell

BUILD = Path("build/kernels")
EVIDENCE = Path("build/evidence")
OBJECTS = BUILD / "objects"
"""The tests' own BPF objects, compiled here once: in a guest the compiler takes a minute."""
BYTECODE = BUILD / "bytecode"


def pytest(*options: str) -> tuple[str, ...]:
    """The tests, on this machine as in a guest; what Python compiles of them goes to BYTECODE."""
    return (
        *("env", "-u", "PYTHONDONTWRITEBYTECODE", f"PYTHONPYCACHEPREFIX={BYTECODE.resolve()}", "PYTHONPATH=tests"),
        *(f"DATAPATH_TEST_OBJECTS={OBJECTS.resolve()}", sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
        *options,
    )


def in_guest(*options: str) -> tuple[str, ...]:
    """The tests, in a guest alone."""
    return (*pytest("--basetemp=/run/pytest", f"--junitxml=/run/results/{results.REPORT}"), *options)


def collect(*options: str) -> None:
    """Have Python compile here what the tests import, and the executor: in a guest it takes many times as long."""
    subprocess.run(pytest("-q", "--collect-only", *options), check=True, stdout=subprocess.DEVNULL)
    compiled = ("env", f"PYTHONPYCACHEPREFIX={BYTECODE.resolve()}", sys.executable, "-m", "compileall", "-q")
    subprocess.run((*compiled, "executor/datapath"), check=True)


def directory(name: str) -> Path:
    """Where what a guest brings back is."""
    return (BUILD / f"results-{name}").resolve()


def run(name: str, image: Image, command: Sequence[str], seconds: float) -> Results:
    """Boot a kernel and run the tests under it; evidence of what failed is kept by `name`."""
    began = time.monotonic()
    place = directory(name)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    tell(f"{name} ({image.release}) boots")
    found = results.read(place, guest.run(image, place, command, seconds))
    counted = f"{found.passed} passed, {len(found.failures)} failed, {found.skipped} skipped"
    tell(f"{name}: {counted} in {time.monotonic() - began:.0f} s")
    evidence = EVIDENCE / f"kernels-{name}"
    shutil.rmtree(evidence, ignore_errors=True)
    if found.failures:
        shutil.copytree(place, evidence)
        for each in found.failures:
            tell(f"{name}: FAILED {each}")
        tell(f"{name}: console.log and output.log are in {evidence}")
    return found


def count(found: Iterable[Results]) -> int:
    """Print the sum; returns the exit code. What these stages skip is tested nowhere, so it counts as failed."""
    found = list(found)
    passed = sum(one.passed for one in found)
    failed = sum(len(one.failures) + one.skipped for one in found)
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0 or not passed)


def main(test: Callable[[], int]) -> int:
    """Exit code of `test`; 1 where a kernel cannot be fetched or booted."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    try:
        return test()
    except KernelsError as error:
        tell(str(error))
        print("0 passed, 1 failed", flush=True)
        return 1
