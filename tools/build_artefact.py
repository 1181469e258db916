# SPDX-License-Identifier: Apache-2.0
"""Build the executor's artefact: build/datapath-<version>.pyz and its .sha256.

One zip that runs on a node's own python3 (3.9 or newer): the package `datapath`, the BPF objects as package data
in datapath/objects/, and the pure-Python dependencies. The same sources give the same bytes: entries are sorted
and carry one fixed time. Wheels are checked against the hashes in executor/requirements.txt and cached in
build/wheels.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "executor" / "requirements.txt"
EPOCH = (1980, 1, 1, 0, 0, 0)
# Python in isolated mode: neither the environment nor the working directory can put modules before ours.
SHEBANG = b"#!/usr/bin/python3 -I\n"
MAIN = b"import sys\n\nfrom datapath.__main__ import main\n\nsys.exit(main())\n"
SKIPPED_FOLDERS = frozenset({"__pycache__", "tests", "testing"})
# Parts of dependencies that the daemon never imports and that would be a third of the artefact.
SKIPPED_PREFIXES = ("datapath/generate/", "pyroute2/config/test_platform")
SKIPPED_SUFFIXES = (".pyc", ".pyi", "py.typed", ".so", ".proto")


def version() -> str:
    """The executor's version, from its package."""
    text = (ROOT / "executor/datapath/__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)
    if match is None:
        sys.exit("executor/datapath/__init__.py: no __version__")
    return match.group(1)


def pinned() -> dict[str, str]:
    """SHA-256 -> requirement, of every wheel that goes into the artefact."""
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    rows = [
        re.fullmatch(r"(\S+==\S+) --hash=sha256:([0-9a-f]{64})", line) for line in lines if line[:1] not in ("", "#")
    ]
    if None in rows:
        sys.exit(f"{REQUIREMENTS}: every line must be NAME==VERSION --hash=sha256:HASH")
    return {row.group(2): row.group(1) for row in rows if row is not None}


def wheels(cache: Path) -> list[Path]:
    """The pinned wheels, downloaded where the cache lacks one, their hashes checked."""
    cache.mkdir(parents=True, exist_ok=True)
    wanted = pinned()

    def found() -> dict[str, Path]:
        by_hash = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in cache.glob("*.whl")}
        return {digest: path for digest, path in by_hash.items() if digest in wanted}

    if len(found()) < len(wanted):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        command += ["--only-binary=:all:", "--python-version", "3.9", "--implementation", "py", "--abi", "none"]
        command += ["--platform", "any", "--dest", str(cache), "--requirement", str(REQUIREMENTS)]
        subprocess.run(command, check=True)
    missing = [wanted[digest] for digest in wanted.keys() - found().keys()]
    if missing:
        sys.exit(f"{cache}: no wheel with the pinned hash for {', '.join(sorted(missing))}")
    return sorted(found().values())


def wanted_file(name: str) -> bool:
    """Whether an archive needs this file at run time."""
    folders = name.split("/")[:-1]
    return not (
        name.endswith(("/", *SKIPPED_SUFFIXES))
        or name.startswith(SKIPPED_PREFIXES)
        or SKIPPED_FOLDERS.intersection(folders)
        or (folders and folders[0].endswith(".data"))
    )


def from_wheel(wheel: Path) -> Iterator[tuple[str, bytes]]:
    """The files of a wheel that are needed, metadata and licence included."""
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if wanted_file(name):
                yield name, archive.read(name)


def from_checkout(objects: Path) -> Iterator[tuple[str, bytes]]:
    """The package itself and its objects."""
    package = ROOT / "executor/datapath"
    for path in package.rglob("*"):
        name = f"datapath/{path.relative_to(package).as_posix()}"
        if path.is_file() and wanted_file(name):
            yield name, path.read_bytes()
    for name in sorted(f"{source.stem}.o" for source in (ROOT / "bpf").glob("*.bpf.c")):
        if not (objects / name).is_file():
            sys.exit(f"{objects / name}: missing; run `make bpf` first")
        yield f"datapath/objects/{name}", (objects / name).read_bytes()
    yield "datapath/objects/__init__.py", b'"""BPF objects of this version."""\n'
    yield "LICENSE", (ROOT / "LICENSES/Apache-2.0.txt").read_bytes()
    yield "__main__.py", MAIN


def namespace_packages(names: Iterable[str]) -> set[str]:
    """An `__init__.py` for each folder that has packages and is none itself: Python finds no such folder in a zip."""
    packages = {name.rpartition("/")[0] for name in names if name.endswith("/__init__.py")}
    parents = {each.rpartition("/")[0] for each in packages if "/" in each}
    return {f"{each}/__init__.py" for each in parents - packages}


def write(target: Path, files: Mapping[str, bytes]) -> str:
    """Write the archive; returns its SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_suffix(".tmp")
    with staged.open("wb") as stream:
        stream.write(SHEBANG)
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(files):
                info = zipfile.ZipInfo(name, EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o100644 << 16
                info.create_system = 3
                archive.writestr(info, files[name])
    staged.chmod(0o755)
    staged.replace(target)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(f"{target.name}.sha256").write_text(f"{digest}  {target.name}\n", encoding="ascii")
    return digest


def main() -> None:
    """Build, then say what was built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="folder to write to (default: build)")
    parser.add_argument("--objects", type=Path, default=ROOT / "build/bpf", help="folder of the BPF objects")
    parser.add_argument("--wheels", type=Path, default=ROOT / "build/wheels", help="cache of downloaded wheels")
    options = parser.parse_args()
    files: dict[str, bytes] = {}
    for wheel in wheels(options.wheels):
        files.update(from_wheel(wheel))
    files.update(from_checkout(options.objects))
    files.update(dict.fromkeys(namespace_packages(files), b""))
    target = options.output / f"datapath-{version()}.pyz"
    digest = write(target, files)
    print(f"{target}: {target.stat().st_size / 1024:.0f} KiB, {len(files)} files, sha256 {digest}")


if __name__ == "__main__":
    main()
