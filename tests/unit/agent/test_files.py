"""What the agent keeps in files: original sysctls, the writer's lock, its paths."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from datapath.agent import notify
from datapath.agent.lock import LockedError, WriterLock
from datapath.agent.originals import BOOT_ID, Originals
from datapath.agent.paths import Paths


@pytest.fixture
def originals(tmp_path):
    return Originals(tmp_path / "originals.json")


def test_the_first_value_since_boot_is_the_original(originals):
    originals.record({"a": "0", "b": "1"}, ["a"])
    originals.record({"a": "1", "b": "1"}, ["a", "b"])
    assert originals.load() == {"a": "0", "b": "1"}


def test_a_sysctl_that_does_not_exist_has_no_original(originals):
    originals.record({}, ["a"])
    assert originals.load() == {}
    assert not originals.path.exists()


def test_forgotten_and_removed(originals):
    originals.record({"a": "0", "b": "0"}, ["a", "b"])
    originals.forget(["a"])
    assert originals.load() == {"b": "0"}
    originals.remove()
    originals.remove()
    assert originals.load() == {}


def test_after_a_reboot_the_kernels_values_are_the_originals(originals):
    originals.record({"a": "0"}, ["a"])
    stored = json.loads(originals.path.read_text())
    assert stored["boot_id"] == BOOT_ID.read_text().strip()
    originals.path.write_text(json.dumps({**stored, "boot_id": "another"}))
    assert originals.load() == {}
    originals.record({"a": "2"}, ["a"])
    assert originals.load() == {"a": "2"}


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"boot_id": 1}'])
def test_a_damaged_file_is_no_record(originals, damaged):
    originals.path.write_text(damaged)
    assert originals.load() == {}


def test_there_is_one_writer(tmp_path):
    path = tmp_path / "run/lock"
    with WriterLock(path), pytest.raises(LockedError):
        WriterLock(path).__enter__()
    with WriterLock(path):
        pass


def test_a_killed_writer_leaves_no_lock(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import os, signal; from datapath.agent.lock import WriterLock; from pathlib import Path;"
        f"WriterLock(Path({str(path)!r})).__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    with WriterLock(path):
        pass


def test_paths():
    paths = Paths.from_environment({})
    assert paths.socket == Path("/run/datapath/datapathd.sock")
    assert paths.desired == Path("/var/lib/datapath/desired.json")
    assert paths.pins == Path("/sys/fs/bpf/datapath")
    assert Paths.from_environment({"DATAPATH_ROOT": "/x"}).socket == Path("/x/run/datapath/datapathd.sock")


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path, monkeypatch, abstract):
    name = f"\0datapath-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(name)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
        assert notify.notify("READY=1") is True
        assert server.recv(100) == b"READY=1"
    assert notify.notify("READY=1") is False
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert notify.notify("READY=1") is False


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "nonsense"}, None),
    ],
)
def test_watchdog(monkeypatch, variables, expected):
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert notify.watchdog_interval() == expected
