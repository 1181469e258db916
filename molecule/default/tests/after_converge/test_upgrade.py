"""Upgrades of the executor under load: one that works, and one that does not and is taken back."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipapp
import zipfile

import pytest

from lib import lab

NODE = "lb1"
UNIT = "/etc/systemd/system/datapathd.service"


def installed():
    """What runs: version, unit, and everything in the folders where versions and units are."""
    links = lab.run(NODE, "readlink", "/opt/datapath/current.pyz").out.strip()
    unit = lab.run(NODE, "cat", UNIT).out
    pid = lab.run(NODE, "systemctl", "show", "--property=MainPID", "--value", "datapathd").out
    return links, unit, lab.shell(NODE, "ls /opt/datapath /etc/systemd/system"), pid


def upgrade(artefact, units):
    """Run the playbook under load."""
    text = f"{hashlib.sha256(artefact.read_bytes()).hexdigest()}  {artefact.name}\n"
    artefact.with_name(f"{artefact.name}.sha256").write_text(text)
    variables = json.dumps({"datapath_artefact": str(artefact), "executor_unit_sources": str(units)})
    with lab.Load("--workers", "2", "--keep", "2", *lab.TARGETS) as load:
        said = lab.playbook("upgrade", "--limit", NODE, "--extra-vars", variables)
    assert lab.failures(load.report) == {}
    return said


@pytest.fixture
def units(tmp_path):
    """A folder with a unit that differs from the installed one."""
    folder = tmp_path / "units"
    folder.mkdir()
    own = (lab.ROOT / "executor/systemd/datapathd.service").read_text()
    (folder / "datapathd.service").write_text(f"{own}\n# another version\n")
    return folder


@pytest.fixture
def other(tmp_path):
    """An artefact that does what the installed one does, under another checksum; what was installed comes back."""
    (own,) = (lab.ROOT / "roles/executor/files").glob("datapath-*.pyz")
    path = tmp_path / own.name
    shutil.copyfile(own, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("another-version", "")
    yield path
    said = lab.playbook("cluster", "--limit", NODE)
    assert said.returncode == 0, said.stdout


def test_an_upgrade_and_one_that_is_taken_back_lose_no_request(tmp_path, other, units):
    before = installed()
    said = upgrade(other, lab.ROOT / "executor/systemd")
    assert said.returncode == 0, said.stdout
    after = installed()
    assert after[0] not in ("", before[0])
    assert after[3] != before[3]
    assert lab.datapath(NODE, "status")["last_apply"] is None

    source = tmp_path / "broken"
    source.mkdir()
    (source / "__main__.py").write_text("raise SystemExit('this version is broken')")
    broken = tmp_path / "datapath-9.9.9.pyz"
    zipapp.create_archive(source, broken, "/usr/bin/env python3")
    said = upgrade(broken, units)
    assert said.returncode != 0
    assert "this version is broken" in said.stdout
    assert f"The version before, {after[0]}, runs again." in said.stdout
    assert installed()[:3] == after[:3]
    assert lab.datapath(NODE, "verify")["drift_count"] == 0
