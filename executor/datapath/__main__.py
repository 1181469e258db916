"""One program, two names: `datapathd` runs the agent, everything else is the command line."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import Optional


def main(arguments: Optional[list[str]] = None) -> int:
    """Run the agent or a command; returns the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    if PurePath(sys.argv[0]).name == "datapathd":
        words = ["agent", *words]
    from datapath.cli.main import run  # noqa: PLC0415 - nothing else may be imported before the command is known

    return run(words)


if __name__ == "__main__":
    sys.exit(main())
