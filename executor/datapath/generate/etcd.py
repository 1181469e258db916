"""Generates the classes of `datapath/etcd/rpc.proto`, and their types."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from grpc_tools import protoc

_EXECUTOR = Path(__file__).resolve().parents[2]
_SOURCE = "datapath/etcd/rpc.proto"


def outputs() -> Mapping[str, str]:
    """Path relative to the repository -> text."""
    with tempfile.TemporaryDirectory() as directory:
        places = [f"-I{_EXECUTOR}", f"--python_out={directory}", f"--pyi_out={directory}"]
        if protoc.main(["protoc", *places, _SOURCE]) != 0:
            raise RuntimeError(f"{_SOURCE} cannot be compiled")
        made = sorted(Path(directory).rglob("rpc_pb2.py*"))
        return {f"executor/{path.relative_to(directory)}": path.read_text(encoding="utf-8") for path in made}
