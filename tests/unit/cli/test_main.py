"""The command line itself, as a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from datapath import __version__

ROOT = Path(__file__).parents[3]


def run(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "executor"), **options.pop("env", {})}
    command = [sys.executable, "-m", "datapath", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, **options)


def test_version():
    assert run("--version").stdout == f"datapath {__version__}\n"


@pytest.mark.parametrize(
    "words", [(), ("unknown",), ("apply",), ("maglev",), ("status", "-o", "xml"), ("ct",), ("service",)]
)
def test_a_command_line_that_makes_no_sense_is_refused(words):
    done = run(*words)
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.parametrize("words", [(), ("apply",), ("service", "list"), ("ct", "list"), ("reset",), ("agent",)])
def test_help(words):
    done = run(*words, "--help")
    assert done.returncode == 0
    assert "usage: datapath" in done.stdout


def test_the_command_line_imports_nothing_dear(tmp_path):
    """What a call costs before it does anything: no netlink, no HTTP server, no compiler."""
    code = (
        "import sys; sys.argv = ['datapath', 'status']\n"
        "from datapath.__main__ import main\n"
        "assert main() == 4\n"
        "dear = {'pyroute2', 'uvicorn', 'starlette', 'httpx', 'prometheus_client', 'asyncio', 'datapath.kernel',"
        " 'datapath.compile', 'datapath.agent.core'}\n"
        "assert not dear & set(sys.modules), dear & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "executor"), "DATAPATH_ROOT": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_has_enough_is_no_error(tmp_path):
    command = f"{sys.executable} -m datapath status --help | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "executor"), "DATAPATH_ROOT": str(tmp_path)}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("usage:")


@pytest.mark.parametrize("limit", ["-1", "x"])
def test_a_limit_is_a_number(tmp_path, limit):
    assert run("ct", "list", "--limit", limit, env={"DATAPATH_ROOT": str(tmp_path)}).returncode == 2
