"""Errors of the kernel stage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from datapath.plan.operations import Operation


class BpfError(OSError):
    """A bpf(2) call or a libbpf call failed; `log` is the verifier's (or libbpf's) log, "" where there is none."""

    def __init__(self, number: int, what: str, log: str = "") -> None:
        super().__init__(number, f"{what}: {os.strerror(number)}")
        self.log = log


class CompilerError(BpfError):
    """The process that compiles a source ended without an answer; `log` is what it wrote."""

    def __init__(self, message: str, log: str = "") -> None:
        OSError.__init__(self, 0, message)
        self.log = log


class LibbpfMissingError(OSError):
    """libbpf.so.1 is not on this node, or is older than 1.0."""


class RefusedError(Exception):
    """What is asked for is not done: it does not fit what is there, or that belongs to somebody else.

    `field` is the part of the program's description that is at fault, `allowed` what it could be.
    """

    def __init__(self, message: str, field: str = "", allowed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.field = field
        self.allowed = tuple(allowed)


class KernelError(Exception):
    """An operation failed; nothing after it was done.

    `operation` is the `datapath.plan.operations` object (None outside `execute`), `errno` is 0 where the refusal is
    ours, `log` is the verifier's log.
    """

    def __init__(self, operation: Optional[Operation], errno: int, message: str, log: str = "") -> None:
        super().__init__(message)
        self.operation = operation
        self.errno = errno
        self.message = message
        self.log = log
