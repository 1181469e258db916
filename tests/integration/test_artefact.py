"""The artefact that nodes get: one file, the same for the same sources, complete."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from datapath import __version__
from datapath.compile.outcomes import OUTCOMES
from netns.topology import wait_for

ROOT = Path(__file__).parents[2]


def build(folder):
    command = [sys.executable, ROOT / "tools/build_artefact.py", "--output", folder]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / f"datapath-{__version__}.pyz"


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    return build(tmp_path_factory.mktemp("artefact"))


def run(program, *words, **options):
    """Run the artefact without anything of the test's own environment."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", **options.pop("env", {})}
    command = [program, *words] if isinstance(program, Path) else [*program, *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60, **options)


def test_the_same_sources_give_the_same_bytes(artefact, tmp_path):
    assert build(tmp_path).read_bytes() == artefact.read_bytes()


def test_the_checksum_is_the_files(artefact):
    told = artefact.with_name(f"{artefact.name}.sha256").read_text()
    assert told == f"{hashlib.sha256(artefact.read_bytes()).hexdigest()}  {artefact.name}\n"


def test_a_node_s_own_python_finds_what_speaks_to_stores(artefact):
    """Only there is protobuf in a zip, and its package `google` is a folder of no distribution."""
    words = ["/usr/bin/python3", "-I", "-c", "import sys; sys.path[:0] = [sys.argv[1]]; import datapath.etcd.client"]
    done = run(words, artefact)
    assert done.returncode == 0, done.stderr


def test_contents(artefact):
    with zipfile.ZipFile(artefact) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        packed = archive.read("datapath/objects/xdp_lb.bpf.o")
        assert packed == (ROOT / "build/bpf/xdp_lb.bpf.o").read_bytes()
    assert not [name for name in names if name.endswith((".pyc", ".so")) or name.startswith("datapath/generate")]
    for package in ("pyroute2", "starlette", "uvicorn", "httpx", "prometheus_client", "exceptiongroup"):
        assert f"{package}/__init__.py" in names
    licences = {name.split("/")[0] for name in names if re.search(r"licen[cs]e|copying", name, re.IGNORECASE)}
    metadata = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert metadata <= licences
    assert "LICENSE" in names


def interpreters():
    """The system's Python and every supported one that pyenv has here."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(pyenv.glob("3.*/bin/python3"))
    return [Path("/usr/bin/python3"), *(path for path in found if int(path.parents[1].name.split(".")[1]) >= 9)]


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.parents[1].name)
def test_it_runs_on(artefact, python, tmp_path):
    assert run((python, "-I", artefact), "--version").stdout == f"datapath {__version__}\n"
    told = run((python, "-I", artefact), "info", "-o", "json", env={"DATAPATH_ROOT": str(tmp_path)})
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["features"]["bpf"] is True


def test_everything_that_the_daemon_imports_is_inside(artefact):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import datapath.agent.daemon, datapath.cli.local, datapath.kernel.netlink, httpx, httpcore, h11, pyroute2\n"
        "from httpcore._backends import anyio\n"
        "assert sys.argv[1] in httpx.__file__"
    )
    for python in interpreters():
        done = run((python, "-I", "-S", "-c", code, artefact))
        assert done.returncode == 0, f"{python}: {done.stderr}"


def test_the_name_decides_what_it_is(artefact, tmp_path):
    daemon, client = tmp_path / "datapathd", tmp_path / "datapath"
    for link in (daemon, client):
        link.symlink_to(artefact)
    assert "run the agent" in run(daemon, "--help").stdout
    assert "COMMAND" in run(client, "--help").stdout


def test_a_call_is_quick(artefact, tmp_path):
    """Half a second at worst, of several: modules call it, and people wait for it."""

    def seconds():
        started = time.monotonic()
        assert run(artefact, "status", env={"DATAPATH_ROOT": str(tmp_path)}).returncode == 4
        return time.monotonic() - started

    assert min(seconds() for _ in range(5)) < 0.5


@pytest.mark.parametrize("python", interpreters(), ids=lambda path: path.parents[1].name)
def test_the_daemon_runs_from_it(artefact, node, python):
    daemon = node.root / "datapathd"
    daemon.symlink_to(artefact)
    environment = {"PATH": "/usr/sbin:/usr/bin", "DATAPATH_ROOT": str(node.root)}
    node.process = node.lb.start(str(python), "-I", str(daemon), env=environment, stderr=subprocess.DEVNULL)
    socket = node.root / "run/datapath/datapathd.sock"
    wait_for(socket.exists, 30, "the socket")
    with node.lb:
        done = run(artefact, "status", "-v", "-o", "json", env={"DATAPATH_ROOT": str(node.root)})
    assert len(json.loads(done.stdout)["outcomes"]) == len(OUTCOMES)
    assert node.stop() == 0
