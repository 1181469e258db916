"""The kernels that are tested: the one place that names them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """A kernel of Debian's."""

    version: str
    suite: str
    """Suite whose `linux-image-amd64` it is."""

    @property
    def number(self) -> tuple[int, ...]:
        """The version, to compare by."""
        return tuple(map(int, self.version.split(".")))


KERNELS = (
    Kernel("5.10", "bullseye"),
    Kernel("6.1", "bookworm"),
    Kernel("6.12", "bookworm-backports"),
)
