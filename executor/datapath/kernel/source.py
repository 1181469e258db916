"""Users' programs from C source: compiled by bcc, in a process of its own (`datapath.tracing.compiler`)."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, NoReturn, Optional

from datapath.kernel import libbpf
from datapath.kernel.abi import ProgramType
from datapath.kernel.errors import BpfError, CompilerError, RefusedError
from datapath.tracing.compiler import PACKET

log = logging.getLogger(__name__)

SECONDS = 120.0
"""A compiler that has not done its work after these is taken to hang; it needs half a second of CPU to three."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from datapath.tracing.compiler import main; main(int(sys.argv[2]))"
)
_LOG_TAIL = 64 * 1024
_ERROR = re.compile(r"^([^:\s][^:\n]*):(\d+):(\d+): (?:fatal )?error: (.*)$", re.MULTILINE)
_SOURCE_FILE = "/virtual/main.c"
"""What bcc calls the source."""
_SHOWN_ERRORS = 10


@contextmanager
def loaded(source: str, kind: ProgramType, choose: Callable[[Sequence[str]], str]) -> Iterator[tuple[int, str]]:
    """Compile and load a program without pinning anything: (file descriptor, name of its function).

    Args:
        source: C text, with bcc's macros.
        kind: XDP or SCHED_CLS.
        choose: gets the names of all functions, returns the one to load or raises.

    Raises:
        BpfError: the verifier rejects the program, or the kernel a map; with the log.
        CompilerError: the compiler died or hangs.
        RefusedError: on `source`: bcc or headers are missing, or it does not compile, with the compiler's errors.
    """
    with _started(source) as compiler:
        functions = _functions(compiler)
        if compiler.said():
            log.debug("bcc: %s", compiler.said().rstrip())
        function = choose(functions)
        fd = _load(compiler, function, kind)
    with libbpf.closing(fd):
        yield fd, function


@dataclass(frozen=True)
class _Compiler:
    """The process, and the ways to it."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    deadline: float
    errors: int
    """File descriptor of what it writes to standard error."""

    def said(self, start: int = 0) -> str:
        """The end of what it wrote since `start` (see `written`)."""
        end = self.written()
        start = max(start, end - _LOG_TAIL)
        return os.pread(self.errors, end - start, start).decode(errors="replace")

    def written(self) -> int:
        """Bytes that it wrote so far."""
        return os.fstat(self.errors).st_size

    def ask(self, question: Any) -> None:
        # Of one that is dead, the answer tells.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(json.dumps(question).encode())

    def answer(self) -> tuple[Any, list[int]]:
        """The next answer, and the file descriptors that came with it.

        Raises:
            CompilerError
        """
        self.connection.settimeout(max(self.deadline - time.monotonic(), 0.001))
        try:
            data, fds, _, _ = socket.recv_fds(self.connection, PACKET, 1, socket.MSG_CMSG_CLOEXEC)
        except socket.timeout as error:
            raise CompilerError(f"the compiler did not end within {SECONDS:.0f} s", self.said()) from error
        except ConnectionResetError:
            data, fds = b"", []
        if not data:
            raise CompilerError(f"the compiler {_end(self.process.wait())} without an answer", self.said())
        return json.loads(data), fds


def _end(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


@contextmanager
def _started(source: str) -> Iterator[_Compiler]:
    """The compiler at work; it is gone after the block."""
    with contextlib.ExitStack() as stack:
        # Memory that is a file: the daemon's sandbox has no directory for temporary ones.
        text, errors = (stack.enter_context(libbpf.closing(os.memfd_create(name))) for name in ("source", "errors"))
        with open(text, "wb", closefd=False) as stream:
            stream.write(source.encode())
        os.lseek(text, 0, os.SEEK_SET)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.enter_context(ours)
        with theirs:
            process = subprocess.Popen(
                _command(theirs.fileno()),
                stdin=text,
                stdout=errors,
                stderr=errors,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
                pass_fds=(theirs.fileno(),),
            )
        stack.callback(_finish, process)
        yield _Compiler(process, ours, time.monotonic() + SECONDS, errors)


def _command(descriptor: int) -> list[str]:
    """This interpreter with this process's modules, and nothing else (-I): not the environment's or the directory's."""
    path = [os.path.abspath(each) for each in sys.path if each]  # noqa: PTH100 - text in, text out
    return [sys.executable, "-I", "-B", "-c", _START, json.dumps(path), str(descriptor)]


def _finish(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _functions(compiler: _Compiler) -> list[str]:
    answer, _ = compiler.answer()
    if "missing" in answer:
        raise RefusedError(answer["missing"], "source")
    if "failed" in answer:
        _refuse(compiler.said(), answer["failed"])
    functions: list[str] = answer["functions"]
    return functions


def _refuse(said: str, number: int) -> NoReturn:
    """Tell the compiler's errors; where there are none, the kernel refused a map."""
    errors = [_place(*found) for found in _ERROR.findall(said)]
    if not errors:
        raise BpfError(number or errno.EINVAL, "bcc makes no program of the source", said)
    more = len(errors) - _SHOWN_ERRORS
    shown = "; ".join(errors[:_SHOWN_ERRORS]) + (f"; and {more} more errors" if more > 0 else "")
    raise RefusedError(f"does not compile: {shown}", "source")


def _place(file: str, line: str, column: str, text: str) -> str:
    where = f"line {line}, column {column}" if file == _SOURCE_FILE else f"{file}, line {line}"
    return f"{where}: {text}"


def _load(compiler: _Compiler, function: str, kind: ProgramType) -> int:
    compiled = compiler.written()
    compiler.ask({"function": function, "type": int(kind)})
    answer, fds = compiler.answer()
    failed: Optional[int] = answer.get("failed")
    if failed is not None or not fds:
        raise BpfError(failed or errno.EPROTO, "the kernel refused the eBPF program", compiler.said(compiled))
    return fds[0]
