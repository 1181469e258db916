"""Certificates and keys on a node: all of them, or none, and nothing secret in what is told."""

from __future__ import annotations

import json
import os
import pwd

import pytest
from ansible_collections.ebpf.datapath.plugins.modules import certificate_files

KEY, CERTIFICATE = "-----BEGIN PRIVATE KEY-----\nsecret\n", "-----BEGIN CERTIFICATE-----\nMIIB\n"
ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def install(run_module, tmp_path):
    """Runs the module for a key and a certificate, and files more."""

    def run(*more, contents=(KEY, CERTIFICATE), **how):
        files = [{"path": str(tmp_path / "new/a.key")}, {"path": str(tmp_path / "new/a.pem"), "mode": "0644"}, *more]
        return run_module(certificate_files, files=[{"owner": ME, **each} for each in files], contents=contents, **how)

    return run


def test_a_dry_run_writes_nothing_and_shows_no_key(install, tmp_path):
    told = install(check=True, diff=True)
    assert told["changed"]
    assert not (tmp_path / "new").exists()
    assert "secret" not in json.dumps(told)
    assert told["diff"]["before"] == ""
    assert f"{tmp_path}/new/a.key: key, {ME}, 0600" in told["diff"]["after"]


def test_files_are_installed_once(install, tmp_path):
    assert install()["paths"] == [str(tmp_path / "new" / name) for name in ("a.key", "a.pem")]
    assert [(tmp_path / "new" / name).stat().st_mode & 0o777 for name in ("a.key", "a.pem")] == [0o600, 0o644]
    assert (tmp_path / "new/a.key").read_text() == KEY
    assert not install()["changed"]


def test_a_mode_that_is_another_is_a_change(install, tmp_path):
    install()
    (tmp_path / "new/a.key").chmod(0o644)
    assert install()["paths"] == [str(tmp_path / "new/a.key")]
    assert (tmp_path / "new/a.key").stat().st_mode & 0o777 == 0o600


def test_where_one_cannot_be_written_all_stay(install, tmp_path):
    install()
    failed = install({"path": str(tmp_path / "b.pem"), "owner": "nobody-such"}, contents=["other\n", "other\n", "x\n"])
    assert "are as they were" in failed["msg"]
    assert (tmp_path / "new/a.key").read_text() == KEY
    assert sorted(each.name for each in (tmp_path / "new").iterdir()) == ["a.key", "a.pem"]
    assert not (tmp_path / "b.pem").exists()


def test_nothing_of_a_key_is_left_where_it_cannot_have_its_owner(install, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    assert "are as they were" in install()["msg"]
    assert list((tmp_path / "new").iterdir()) == []


def test_each_file_has_a_content(install):
    assert install(contents=[KEY])["msg"] == "2 files have 1 contents"
