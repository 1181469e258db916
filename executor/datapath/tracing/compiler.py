"""The process that compiles a user's program; it ends when the program is handed over.

The compiler is a library of 100 MB that never gives its memory back, so the daemon runs it in a process of its own
(`datapath.kernel.source`), as `python -c`. The C text is on standard input; questions and answers are JSON, one a
packet on a unix socket:

    answer    {"functions": [name]} once it is compiled, {"missing": why not here}, or {"failed": errno}
    question  {"function": name, "type": enum bpf_prog_type}
    answer    {} and the program's file descriptor, or {"failed": errno}

What compiler and verifier have to say is on standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from datapath.tracing import requirements

PACKET = 64 * 1024
"""Bytes of the longest packet."""


def main(descriptor: int) -> None:
    """Compile, answer, end; `descriptor` is the socket's."""
    # Where memory is short, the compiler has to go, and not the daemon that it has its score from.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("0", encoding="ascii")
    with socket.socket(fileno=descriptor) as connection:
        try:
            bcc = requirements.bcc(unpack=False)
        except requirements.MissingError as error:
            _answer(connection, {"missing": str(error)})
            return
        module = _compile(connection, bcc, sys.stdin.buffer.read())
        if module is not None:
            _answer(connection, {"functions": _functions(bcc, module)})
            _load(connection, bcc, module)
    # Without bcc's clean-up, which takes its time over what ends with the process anyway.
    sys.stderr.flush()
    os._exit(0)


def _answer(connection: socket.socket, answer: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
    data = [json.dumps(answer).encode()]
    if descriptors:
        socket.send_fds(connection, data, descriptors)
    else:
        connection.sendmsg(data)


def _compile(connection: socket.socket, bcc: Any, text: bytes) -> Optional[Any]:
    """The compiled module, its maps created; None after answering why not."""
    # bcc loads and attaches functions whose names begin with kprobe__, tracepoint__ and the like.
    module = type("Module", (bcc.BPF,), {"_trace_autoload": lambda _: None})
    try:
        return module(text=text)
    except Exception:  # bcc raises nothing more exact
        _answer(connection, {"failed": ctypes.get_errno()})
        return None


def _functions(bcc: Any, module: Any) -> list[str]:
    count = bcc.lib.bpf_num_functions(module.module)
    return [bcc.lib.bpf_function_name(module.module, index).decode() for index in range(count)]


def _load(connection: socket.socket, bcc: Any, module: Any) -> None:
    """Load what is asked for and hand it over; nothing where nobody asks any more."""
    question = connection.recv(PACKET)
    if not question:
        return
    wanted = json.loads(question)
    try:
        function = module.load_func(wanted["function"].encode(), wanted["type"])
    except Exception:  # bcc raises nothing more exact
        _answer(connection, {"failed": ctypes.get_errno() or errno.EINVAL})
        return
    _answer(connection, {}, [function.fd])
