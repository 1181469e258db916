#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run the README's commands as they are written.

Every fenced block marked `sh` is run from the top of the checkout, in order, each by its own `bash -e`, as a reader
would paste it. `make test` is left out: it is what runs this. Blocks marked otherwise (`yaml`, `console`) are
illustrations that need the reader's own machines.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUNS_THIS = {"make test"}


def blocks(text: str) -> list[str]:
    """The `sh` blocks of a Markdown text, without the lines that would run this again."""
    found = []
    for block in BLOCK.findall(text):
        kept = "\n".join(line for line in block.splitlines() if line.split("#")[0].strip() not in RUNS_THIS)
        if kept.strip():
            found.append(kept)
    return found


def main() -> int:
    """Run all blocks; the exit code says whether each one succeeded."""
    failed = 0
    found = blocks((ROOT / "README.md").read_text())
    for number, block in enumerate(found, 1):
        print(f"--- README block {number} of {len(found)}\n{block}", flush=True)
        began = time.monotonic()
        command = ["bash", "-e", "-o", "pipefail", "-c", block]
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
        print(f"--- block {number}: exit {code} after {time.monotonic() - began:.1f} s", flush=True)
        failed += code != 0
    print(f"{len(found) - failed} passed, {failed} failed")
    return 1 if failed or not found else 0


if __name__ == "__main__":
    sys.exit(main())
