"""The collection as it is shipped: built, installed somewhere, used from there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MODULES = sorted(path.stem for path in (ROOT / "plugins/modules").glob("*.py"))
ROLES = ("preflight", "executor", "datapath", "load_balancer", "endpoints", "bandwidth_manager", "cluster_mesh")
PLAYBOOKS = ("cluster", "upgrade", "status", "reset", "mesh", "rotate_mesh_ca", "mesh_backup", "mesh_restore")


def ansible(command, *words, collections, **more):
    """Run it with nothing of this checkout or of the user in its configuration."""
    configuration = collections / "empty.cfg"
    configuration.touch()
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(collections), "ANSIBLE_CONFIG": str(configuration)}
    return subprocess.run(
        [sys.executable, "-m", "ansible", command, *map(str, words)],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
        **more,
    )


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The files that git knows, and an artefact: what `make artefact` leaves, or a stand-in where nobody has run it."""
    copy = tmp_path_factory.mktemp("sources")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    files = copy / "roles/executor/files"
    files.mkdir(exist_ok=True)
    for artefact in (ROOT / "roles/executor/files").glob("datapath-*.pyz*"):
        shutil.copy2(artefact, files)
    if not list(files.glob("datapath-*.pyz")):
        (files / "datapath-0.0.0.pyz").write_bytes(b"")
        (files / "datapath-0.0.0.pyz.sha256").write_text("")
    return copy


@pytest.fixture(scope="module")
def tarball(sources, tmp_path_factory):
    target = tmp_path_factory.mktemp("tarball")
    done = ansible("galaxy", "collection", "build", "--output-path", target, collections=target, cwd=sources)
    assert done.returncode == 0, done.stderr
    (found,) = target.glob("ebpf-datapath-*.tar.gz")
    return found


@pytest.fixture(scope="module")
def installed(tarball, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    done = ansible("galaxy", "collection", "install", "--offline", tarball, "-p", target, collections=target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_tarball_holds_what_runs_and_nothing_else(tarball):
    with tarfile.open(tarball) as archive:
        names = {name for name in archive.getnames() if "/" in name or "." in name}
    top = {name.split("/")[0] for name in names}
    assert top <= {
        "FILES.json",
        "LICENSE",
        "LICENSES",
        "MANIFEST.json",
        "README.md",
        "ansible.cfg",
        "changelogs",
        "docs",
        "executor",
        "inventories",
        "meta",
        "playbooks",
        "plugins",
        "roles",
        "CHANGELOG.md",
        "CHANGELOG.rst",
    }
    units = {"executor/systemd/" + path.name for path in (ROOT / "executor/systemd").iterdir()}
    assert {name for name in names if name.startswith("executor/")} == {"executor/systemd"} | units
    assert not [name for name in names if re.match(r"\w+/lab(_|/|\.|$)", name) or name.endswith((".pyc", ".bpf.c"))]
    (artefact,) = (name for name in names if name.endswith(".pyz"))
    assert artefact.startswith("roles/executor/files/datapath-")
    assert artefact + ".sha256" in names


def test_versions_agree():
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text())["version"]
    package = (ROOT / "executor/datapath/__init__.py").read_text()
    assert f'__version__ = "{galaxy}"' in package


def test_the_action_group_holds_every_module():
    assert yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]["all"] == MODULES


def test_modules_are_documented_where_they_are_installed(installed):
    names = ["ebpf.datapath." + name for name in MODULES]
    done = ansible("doc", "-t", "module", "-j", *names, collections=installed)
    assert done.returncode == 0, done.stderr
    assert all(f'"{name}"' in done.stdout for name in names)


def test_roles_are_documented_where_they_are_installed(installed):
    names = ["ebpf.datapath." + name for name in ROLES]
    done = ansible("doc", "-t", "role", "-j", *names, collections=installed)
    assert done.returncode == 0, done.stderr
    assert all(f'"{name}"' in done.stdout for name in names)


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_playbooks_run_by_name(installed, tmp_path, playbook):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("lb_node: {hosts: {node: {}}}\n")
    done = ansible("playbook", "-i", inventory, "--syntax-check", "ebpf.datapath." + playbook, collections=installed)
    assert done.returncode == 0, done.stderr


def test_a_reset_that_is_not_confirmed_refuses(installed, tmp_path):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("lb_node: {hosts: {node: {ansible_host: 192.0.2.255}}}\n")
    for words in (
        [],
        ["-e", "datapath_reset_confirm=yes"],
        ["--limit", "node"],
        ["-e", "datapath_reset_confirm=no", "--limit", "node"],
    ):
        done = ansible("playbook", "-i", inventory, *words, "ebpf.datapath.reset", collections=installed)
        assert done.returncode == 2, done.stdout
        assert "This removes the datapath" in done.stdout
        assert "unreachable=1" not in done.stdout


def test_an_inventory_without_any_node_is_refused(installed, tmp_path):
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("all: {hosts: {node: {ansible_host: 192.0.2.255}}}\n")
    done = ansible("playbook", "-i", inventory, "ebpf.datapath.cluster", collections=installed)
    assert done.returncode == 2
    assert "no host in group lb_node and none in group endpoint_node" in done.stdout


def test_a_role_s_variables_are_documented_under_their_own_names():
    """Whatever a task reads from the inventory is in an argument specification, else preflight would refuse it."""
    known = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry_point in yaml.safe_load(path.read_text())["argument_specs"].values():
            known |= set(entry_point.get("options") or {})
    files = [
        path
        for pattern in ("roles/*/tasks/*.yml", "roles/*/defaults/*.yml", "playbooks/*.yml")
        for path in ROOT.glob(pattern)
    ]
    used = {name for path in files for name in re.findall(r"(?<![\w.'/-])(?:datapath|cilium)_\w+", path.read_text())}
    assert used - {"datapath_target", "datapath_node"} <= known
