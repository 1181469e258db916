"""Errors of every stage in the one shape that the command line and the modules show."""

from __future__ import annotations

import errno
from typing import Any, Optional

from datapath.agent.lock import LockedError
from datapath.compile import CompileErrors
from datapath.kernel import KernelError
from datapath.plan.operations import Operation, PutProgram, RemoveProgram
from datapath.spec.errors import SpecErrors

REFUSED, FAILED = 422, 500
"""HTTP status of the two kinds: the input was refused, or the node could not do it."""


def as_errors(error: BaseException) -> list[dict[str, Any]]:
    """Rows with document, path, value, message, allowed, nearest and for kernel failures log."""
    if isinstance(error, (SpecErrors, CompileErrors)):
        return [each.as_dict() for each in error.errors]
    if isinstance(error, KernelError):
        code = errno.errorcode.get(error.errno, "") if error.errno else ""
        message = f"{error.message} ({code})" if code else error.message
        return [_row("kernel", _place(error.operation), message, log=error.log)]
    if isinstance(error, LockedError):
        return [_row("agent", "", str(error))]
    return [_row("node", "", str(error) or type(error).__name__, log=getattr(error, "log", "") or "")]


def status(error: BaseException) -> int:
    """The HTTP status for `error`."""
    return REFUSED if isinstance(error, (SpecErrors, CompileErrors)) else FAILED


def _place(operation: Optional[Operation]) -> str:
    if isinstance(operation, (PutProgram, RemoveProgram)):
        return f"programs.{operation.program.program.name}"
    return type(operation).__name__ if operation is not None else ""


def _row(document: str, path: str, message: str, log: str = "") -> dict[str, Any]:
    return {
        "document": document,
        "path": path,
        "value": None,
        "message": message,
        "allowed": None,
        "nearest": None,
        "log": log,
    }
