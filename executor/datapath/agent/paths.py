"""Where the executor keeps things on a node."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional


@dataclass(frozen=True)
class Paths:
    """Every path that the executor writes, under one root so that tests run beside each other."""

    root: Path = Path("/")

    @classmethod
    def from_environment(cls, environment: Optional[Mapping[str, str]] = None) -> Paths:
        """The node's own paths, or those under DATAPATH_ROOT."""
        variables = os.environ if environment is None else environment
        return cls(Path(variables.get("DATAPATH_ROOT") or "/"))

    @property
    def state(self) -> Path:
        """Survives a reboot."""
        return self.root / "var/lib/datapath"

    @property
    def run(self) -> Path:
        """Survives the daemon, not a reboot."""
        return self.root / "run/datapath"

    @property
    def pins(self) -> Path:
        """Must lie in a bpffs."""
        return self.root / "sys/fs/bpf/datapath"

    @property
    def desired(self) -> Path:
        """The stored desired state."""
        return self.state / "desired.json"

    @property
    def originals(self) -> Path:
        """Sysctls as they were."""
        return self.state / "originals.json"

    @property
    def clustermesh(self) -> Path:
        """What other clusters published."""
        return self.state / "clustermesh.db"

    @property
    def socket(self) -> Path:
        """Where the agent answers."""
        return self.run / "datapathd.sock"

    @property
    def health(self) -> Path:
        """Backends that failed their checks."""
        return self.run / "health.json"

    @property
    def lock(self) -> Path:
        """Held by whoever may write kernel state."""
        return self.run / "writer.lock"
