"""Write every generated file, or with `--check` tell which ones are not current (exit code 1)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from datapath.generate import argument_specs, etcd, module_spec, outcomes, reference, sample

_ROOT = Path(__file__).resolve().parents[3]


def outputs(root: Path) -> Mapping[str, str]:
    """Path relative to the repository -> text that belongs there."""
    return {
        **outcomes.outputs(),
        **etcd.outputs(),
        **argument_specs.outputs(),
        **module_spec.outputs(),
        **reference.outputs(root),
        **sample.outputs(root),
    }


def stale(root: Path) -> list[str]:
    """Generated files whose text on disk is not current, or that are missing."""
    return [name for name, text in outputs(root).items() if _read(root / name) != text]


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def main(arguments: Sequence[str]) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m datapath.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 when a file is not current")
    parser.add_argument("--root", type=Path, default=_ROOT, help="the repository")
    options = parser.parse_args(arguments)
    names = stale(options.root)
    for name in names:
        print(f"{name}: {'is not current' if options.check else 'written'}")
        if not options.check:
            path = options.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(outputs(options.root)[name], encoding="utf-8")
    return 1 if names and options.check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
