# SPDX-License-Identifier: Apache-2.0
"""Run the test stages: `run_tests.py [STAGE...]`, each a target of the Makefile.

They run one after the other in two rows, beside each other: one that emulates machines, which takes a CPU for many
minutes, and then has what waits as much as it works; and all others, which rarely take more than one CPU. Every stage
runs even where an earlier one failed. Its output is shown as it comes, of the first row when a stage ends, and kept in
build/logs/STAGE.log. At the end there are a table of the stages, with the time that they took and that of the CPUs (but
of nodes that a stage booted), the tests that failed, and the sum of what all counted in the last line (these two also
in build/logs/summary: whoever sees only the end of a log sees which failed). A stage that counts nothing itself (a
linter) counts as one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

LOGS = Path("build/logs")
EVIDENCE = Path("build/evidence")
ALONE = ("bpf", "artefact", "test-lab", "test-bandwidth")
"""What the others need, what looks for things left on this machine, and what measures times of emulated ones: they run
first, and nothing beside them."""
STAGES = (
    *ALONE,
    "lint",
    "sanity",
    "test-unit",
    "test-bpf",
    "test-fuzz",
    "test-bench",
    "test-netns",
    "molecule",
    "test-readme",
)
EMULATED = ("test-tracing", "test-kernels")
"""They give way to the others."""
BESIDE = (*EMULATED, "test-integration")
"""Stages that begin after those that run alone, beside the others."""
_COUNTS = re.compile(r"(\d+) (passed|failed|errors?)\b")
_SUMMARY = re.compile(
    r"^[\s\W]*(?:\d+ (?:passed|failed|errors?|skipped|deselected|xfailed|warnings?)(?:, | in |$|\W*$))+"
)
_MOLECULE = re.compile(r"^\w+ [➜>] \w+: Executed: (Successful)?")
"""A line of molecule's final list of actions."""
_FAILED = re.compile(r"(?:FAILED|ERROR) |kernels: \S+: FAILED |\w+ [➜>] \w+: Executed: (?!Successful)")
"""What a line begins with that names what failed: pytest's short summary, a guest's, molecule's."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Outcome:
    """What became of one stage."""

    stage: str
    seconds: float
    cpu: float
    """Seconds of CPU time of the stage's processes that ended."""
    ok: bool
    passed: int
    failed: int


def counts(log: str) -> tuple[int, int]:
    """(passed, failed) over all lines that summarise, as `12 passed, 1 failed in 3.4s`, and over molecule's actions."""
    passed = failed = 0
    for line in _COLOURS.sub("", log).splitlines():
        action = _MOLECULE.match(line)
        if action:
            passed += action.group(1) is not None
            failed += action.group(1) is None
        for number, kind in _COUNTS.findall(line) if _SUMMARY.match(line) else ():
            if kind == "passed":
                passed += int(number)
            else:
                failed += int(number)
    return passed, failed


def failures(log: str) -> Iterator[str]:
    """The lines that name what failed, cut where a message makes one long."""
    return (line[:300] for line in _COLOURS.sub("", log).splitlines() if _FAILED.match(line))


def run(stage: str, beside: bool = False) -> Outcome:
    """Run one stage, keeping its output; one that runs beside others is quiet."""
    began = time.monotonic()
    command = ("make", "--no-print-directory", stage)
    if not beside:
        print(f"\n=== {stage}", flush=True)
    with (LOGS / f"{stage}.log").open("w") as log:
        process = subprocess.Popen(
            ("nice", *command) if stage in EMULATED else command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if not beside:
                print(line, end="", flush=True)
            log.write(line)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    ok = process.returncode == 0
    passed, failed = counts((LOGS / f"{stage}.log").read_text())
    if ok and not passed:
        passed = 1
    if not ok and not failed:
        failed = 1
    outcome = Outcome(stage, time.monotonic() - began, used.ru_utime + used.ru_stime, ok, passed, failed)
    if beside:
        print(f"\n=== {stage} (ran beside the others)\n{(LOGS / f'{stage}.log').read_text()}", end="")
    print(f"=== {stage}: {'ok' if ok else 'FAILED'} after {outcome.seconds:.0f} s", flush=True)
    return outcome


def run_all(stages: Sequence[str]) -> Iterator[Outcome]:
    """The outcomes of stages, in the order in which they end."""
    beside = [stage for stage in stages if stage in BESIDE]
    one_by_one = [stage for stage in stages if stage not in (*ALONE, *BESIDE)]
    for stage in (each for each in stages if each in ALONE):
        yield run(stage)
    with ThreadPoolExecutor(1) as pool:
        # Without others they need not be quiet.
        started = [pool.submit(run, stage, bool(one_by_one)) for stage in beside]
        for stage in one_by_one:
            yield run(stage)
        for future in started:
            yield future.result()


def summary(outcomes: Sequence[Outcome]) -> str:
    """What failed, a line each, and the sum of what all counted."""
    named = [
        f"{row.stage}: {line}"
        for row in outcomes
        if row.failed
        for line in failures((LOGS / f"{row.stage}.log").read_text())
    ]
    passed, failed = sum(row.passed for row in outcomes), sum(row.failed for row in outcomes)
    return "\n".join([*named, f"{passed} passed, {failed} failed"])


def main() -> int:
    """Entry point; exit code 1 when a stage failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(EVIDENCE, ignore_errors=True)
    outcomes = list(run_all(sys.argv[1:] or (*STAGES, *BESIDE)))
    print(f"\n{'stage':<18}{'seconds':>8}{'CPU':>8}{'passed':>8}{'failed':>8}")
    for row in outcomes:
        numbers = f"{row.seconds:>8.0f}{row.cpu:>8.0f}{row.passed:>8}{row.failed:>8}"
        print(f"{row.stage:<18}{numbers}  {'' if row.ok else 'FAILED'}".rstrip())
    ending = summary(outcomes)
    (LOGS / "summary").write_text(ending + "\n")
    print(f"logs: {LOGS}, evidence of failures: {EVIDENCE}\n{ending}", flush=True)
    return int(any(row.failed for row in outcomes))


if __name__ == "__main__":
    sys.exit(main())
