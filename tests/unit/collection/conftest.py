"""Playbooks over hosts that are all this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def ansible(tmp_path):
    """Runs a playbook over groups of hosts, all of them local; returns its exit code and output."""

    def run(playbook, groups, *arguments):
        children = {name: {"hosts": hosts} for name, hosts in groups.items()}
        variables = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        inventory = {"all": {"children": children, "vars": variables}}
        (tmp_path / "hosts.json").write_text(json.dumps(inventory), encoding="utf-8")
        path = Path(playbook)
        if not path.is_absolute():
            path = tmp_path / "play.yml"
            path.write_text(playbook, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", tmp_path / "hosts.json", path, *arguments],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
            check=False,
            env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_LOCALHOST_WARNING": "false"},
        )
        return done.returncode, done.stdout + done.stderr

    return run


class Recorder:
    """A node's command that keeps the document that it is given."""

    def __init__(self, directory):
        self.command = directory / "datapath"
        self._seen = directory / "seen.json"
        empty = {"changed": True, "check": False, "operations": [], "operation_count": 0, "map_writes": 0}
        answer = json.dumps({**empty, "disruption": {}, "diff": {}, "warnings": []})
        self.command.write_text(f"#!/bin/sh\ncat >{self._seen}\necho '{answer}'\n")
        self.command.chmod(0o755)

    def document(self):
        return json.loads(self._seen.read_text())


@pytest.fixture
def recorder(tmp_path):
    return Recorder(tmp_path)
