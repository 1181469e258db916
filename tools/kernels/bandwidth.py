"""`python3 -m tools.kernels.bandwidth [VERSION...]`: test rates of endpoints under Debian's kernels.

They have qdisc fq, which this machine's own may lack.

With `--write`, the plots of docs/bandwidth.md are drawn from what was measured under the newest kernel; with `--draw`,
from what was measured last time. The last line counts, as pytest's does.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tools import svg
from tools.kernels import packages, stage
from tools.kernels.packages import Image
from tools.kernels.results import Results
from tools.kernels.system import tell
from tools.kernels.versions import KERNELS, Kernel

CHOSEN = tuple(kernel for kernel in KERNELS if kernel.version in ("6.1", KERNELS[-1].version))
DOCS = Path("docs")
FIGURES = "bandwidth.json"
SECONDS = 1800
"""After these a guest is taken to hang."""
TESTS = (
    "tests/bandwidth",
    "tests/unit/kernel/test_bandwidth.py::test_fq_is_read_back_healed_and_removed",
    "tests/unit/kernel/test_bandwidth.py::test_mq_has_fq_at_every_queue",
    "tests/unit/kernel/test_bandwidth.py::test_fq_paces_bbr_of_the_container_where_the_programs_route",
)
NEWEST = (
    "tests/integration/test_bandwidth.py::test_the_manager",
    "tests/integration/test_bandwidth.py::test_routed_by_the_programs",
    "tests/integration/test_bandwidth.py::test_bbr_of_all",
    "tests/integration/test_bandwidth.py::test_bbr_of_the_host_alone",
    "tests/integration/test_bandwidth.py::test_an_endpoint_that_comes_later",
    "tests/integration/test_bandwidth.py::test_somebody_s_qdisc_is_left",
)
"""Under the newest kernel alone: of the executor, which takes long in a guest."""
ENVIRONMENT = ("env", "DATAPATH_TEST_BANDWIDTH=/run/results", "DATAPATH_TEST_FORK=1")


def _tests(kernel: Kernel) -> tuple[str, ...]:
    return (*TESTS, *NEWEST) if kernel == KERNELS[-1] else TESTS


def _name(kernel: Kernel) -> str:
    return f"bandwidth-{kernel.version}"


def _figures(kernel: Kernel) -> dict[str, Any]:
    """What a guest measured; of one that failed, as far as it got."""
    file = stage.directory(_name(kernel)) / FIGURES
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def test(chosen: Sequence[Kernel], write: bool) -> int:
    """Boot all at once, and test; returns the exit code."""
    images = packages.ensure(stage.BUILD.resolve(), chosen)
    stage.collect(*TESTS, *NEWEST)

    def boot(image: Image) -> Results:
        command = (*ENVIRONMENT, *stage.in_guest("--durations=25", *_tests(image.kernel)))
        return stage.run(_name(image.kernel), image, command, SECONDS)

    with ThreadPoolExecutor(len(images)) as pool:
        found = list(pool.map(boot, images))
    for kernel in chosen:
        for line in lines(_figures(kernel)):
            tell(f"{kernel.version}: {line}")
    if write:
        draw(_figures(chosen[-1]))
    return stage.count(found)


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """What was measured, in words."""
    if "carried" in found:
        yield f"without a rate the guest carries {found['carried'] / 1e6:.0f} Mbit/s"
    for name, row in found.items():
        if name.startswith("rate "):
            excuse = "" if row["carried"] else " (too much for this guest: only not more than the rate was asserted)"
            yield f"{row['wanted'] / 1e6:.0f} Mbit/s: {row['measured'] / 1e6:.1f}{excuse}"
    if "endpoints" in found:
        row = found["endpoints"]
        yield f"a change of rate: {row['retransmitted']} segments sent again, {row['lost']} requests lost"
    for shaper, row in found.get("latency", {}).items():
        for place in ("same", "other"):
            figures = ", ".join(f"{name} {row[place][name]:.1f}" for name in ("p50", "p95", "p99"))
            ratio = found["latency"]["HTB"][place]["p99"] / row[place]["p99"]
            lower = "" if shaper == "HTB" else f"p99 {ratio:.1f} times lower than HTB's, "
            lost = f"{row[place]['lost']} of {row[place]['sent']} lost"
            yield f"{shaper}, {PLACES[place]}: {figures} ms, {lower}{lost}"


PLACES = {"same": "beside its own bulk flow", "other": "beside another endpoint's"}


def draw(found: Mapping[str, Any]) -> None:
    """Write the plots."""
    for name, text in (("bandwidth-rate.svg", _rate_plot(found)), ("bandwidth-latency.svg", _latency_plot(found))):
        (DOCS / name).write_text(text)
        tell(f"{DOCS / name} is written")


def _rate_plot(found: Mapping[str, Any]) -> str:
    rows = found["endpoints"]
    names = {"db": "db: TCP flows", "web": "web: a flood of UDP"}
    drawn = [
        svg.Line(names[name], [(seconds, rate / 1e6) for seconds, rate in points])
        for name, points in rows["rates"].items()
    ]
    end = max(seconds for line in drawn for seconds, _ in line.points)
    for name, (before, after) in rows["wanted"].items():
        # When the executor is at it, either may be in the kernel.
        parts = ((f"{name}: configured", 0.0, rows["asked"], before), ("", rows["changed"], end, after))
        drawn += [svg.Line(label, [(a, rate / 1e6), (b, rate / 1e6)], dashed=True) for label, a, b, rate in parts]
    return svg.lines("What two endpoints send", "seconds", "Mbit/s", drawn)


def _latency_plot(found: Mapping[str, Any]) -> str:
    rows = [
        svg.Spread(f"{shaper}, {text}", {name: row[place][name] for name in ("p50", "p95", "p99")})
        for place, text in PLACES.items()
        for shaper, row in found["latency"].items()
    ]
    return svg.spreads("How long a small request takes", "milliseconds (logarithmic)", rows)


def main() -> int:
    """Entry point; exit code 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.kernels.bandwidth", description=__doc__)
    versions = [kernel.version for kernel in CHOSEN]
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(versions))
    parser.add_argument("--write", action="store_true", help="draw the plots")
    parser.add_argument("--draw", action="store_true", help="draw the plots from the last run's figures, test nothing")
    arguments = parser.parse_args()
    unknown = set(arguments.versions) - set(versions)
    if unknown:
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}")
    chosen = [kernel for kernel in CHOSEN if not arguments.versions or kernel.version in arguments.versions]
    if arguments.draw:
        draw(_figures(chosen[-1]))
        return 0
    return stage.main(functools.partial(test, chosen, arguments.write))


if __name__ == "__main__":
    sys.exit(main())
