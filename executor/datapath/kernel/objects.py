"""Where the datapath's own object files come from."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.resources
import os
from pathlib import Path
from typing import Optional

LOAD_BALANCER = "xdp_lb.bpf.o"
LOAD_BALANCER_TC = "tc_lb.bpf.o"
NODE = "tc_node.bpf.o"
BANDWIDTH = "tc_bandwidth.bpf.o"
HOST_BBR = "sock_bbr.bpf.o"

_CHECKOUT = Path(__file__).parents[3] / "build" / "bpf"


class ObjectSource:
    """Finds object files by name, as bytes.

    Searched in this order: the directory given (or `DATAPATH_OBJECTS`), the package data `datapath/objects` (an
    installed executor, also from inside its zip), `build/bpf` of a checkout.
    """

    def __init__(self, directory: Optional[Path] = None) -> None:
        self._directory = directory

    def read(self, name: str = LOAD_BALANCER) -> bytes:
        """Contents of the object file `name`.

        Raises:
            FileNotFoundError: it is nowhere; the message lists where it was looked for.
        """
        given = self._directory or os.environ.get("DATAPATH_OBJECTS")
        if given:
            return Path(given, name).read_bytes()
        packaged = importlib.resources.files("datapath").joinpath("objects").joinpath(name)
        if packaged.is_file():
            return packaged.read_bytes()
        if (_CHECKOUT / name).is_file():
            return (_CHECKOUT / name).read_bytes()
        raise FileNotFoundError(f"{name} is neither in the package datapath/objects nor in {_CHECKOUT} (make bpf)")

    def build_id(self) -> bytes:
        """16 bytes that tell versions of the objects apart: the first half of a SHA-256 over them."""
        digest = hashlib.sha256(self.read(LOAD_BALANCER))
        for name in (LOAD_BALANCER_TC, NODE, BANDWIDTH, HOST_BBR):
            # A directory for tests may hold the load balancer's alone.
            with contextlib.suppress(FileNotFoundError):
                digest.update(self.read(name))
        return digest.digest()[:16]
