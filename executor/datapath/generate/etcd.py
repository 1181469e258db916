"""Generates the classes of `datapath/etcd/rpc.proto`, and their types."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from grpc_tools import protoc

_SOURCE = "datapath/etcd/rpc.proto"


def outputs(root: Path) -> Mapping[str, str]:
    """Path relative to the repository -> text; `root` has the source."""
    with tempfile.TemporaryDirectory() as directory:
        places = [f"-I{root / 'executor'}", f"--python_out={directory}", f"--pyi_out={directory}"]
        if protoc.main(["protoc", *places, _SOURCE]) != 0:
            raise RuntimeError(f"{_SOURCE} cannot be compiled")
        made = sorted(Path(directory).rglob("rpc_pb2.py*"))
        return {f"executor/{path.relative_to(directory)}": path.read_text(encoding="utf-8") for path in made}
