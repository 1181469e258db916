import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import datapath
from datapath.kernel.objects import ObjectSource


def test_environment_comes_first(tmp_path, monkeypatch):
    (tmp_path / "xdp_lb.bpf.o").write_bytes(b"chosen")
    monkeypatch.setenv("DATAPATH_OBJECTS", str(tmp_path))
    assert ObjectSource().read() == b"chosen"


def test_what_is_nowhere_says_where_it_was_looked_for(monkeypatch):
    monkeypatch.delenv("DATAPATH_OBJECTS", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"nonsense\.bpf\.o is neither in the package datapath/objects nor in /"
    ):
        ObjectSource().read("nonsense.bpf.o")


def test_from_inside_a_zip(tmp_path):
    package = Path(datapath.__file__).parent
    archive = tmp_path / "executor.pyz"
    with zipfile.ZipFile(archive, "w") as file:
        for source in package.rglob("*.py"):
            file.write(source, source.relative_to(package.parent))
        file.writestr("datapath/objects/xdp_lb.bpf.o", b"packaged")
    code = "from datapath.kernel.objects import ObjectSource; print(ObjectSource().read())"
    environment = {key: value for key, value in os.environ.items() if key != "DATAPATH_OBJECTS"}
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(archive)}, cwd=tmp_path,
    )  # fmt: skip
    assert done.stdout == "b'packaged'\n"
