"""`python3 -m bench`: measure the load balancer's program and the executor; as root, from the repository's top."""

import argparse
import json
import sys
from dataclasses import replace

from bench import figures, harness, programs, report


def main():
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=__doc__)
    parser.add_argument("--short", action="store_true", help="a minute's look: times say little, the rest is the same")
    parser.add_argument("--rounds", type=int, help="rounds of the packet cases")
    parser.add_argument("--repeat", type=int, help="packets of a sample")
    parser.add_argument("--services", type=int, help="services of the executor's document")
    parser.add_argument("--cpu", type=int, help="the CPU to run on; the last by default")
    parser.add_argument("--write-baseline", action="store_true", help="commit to the figures that do not jitter")
    arguments = parser.parse_args()
    chosen = {name: getattr(arguments, name) for name in ("rounds", "repeat", "services")}
    effort = replace(
        harness.SHORT if arguments.short else harness.FULL,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    found = harness.run(effort, arguments.cpu, lambda text: print(f"... {text}", file=sys.stderr, flush=True))
    show(found, programs.BUILD / "short" if arguments.short else programs.BUILD)
    if arguments.write_baseline:
        figures.write(found["figures"])
    worse, remarks = figures.compare(found["figures"], json.loads(figures.BASELINE.read_text()))
    for line in (*remarks, *(f"WORSE {each}" for each in worse)):
        print(line)
    return int(bool(worse))


def show(found, directory):
    """Print everything, and write it to `directory`."""
    for name, text in found["machine"].items():
        print(f"{name:<12}{text}")
    print(f"{'busy':<12}{found['busy']}")
    for text in report.tables(found):
        print(f"\n{text}")
    print(
        "\nwritten:",
        ", ".join(str(path.relative_to(programs.REPOSITORY)) for path in report.write(found, directory)),
    )


if __name__ == "__main__":
    sys.exit(main())
