"""`datapath capture`: what XDP sees and decides, into a pcapng file."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Callable

from datapath import __version__
from datapath.cli.errors import DONE, FAILED, Failure
from datapath.cli.pcapng import Writer
from datapath.compile.layouts import CaptureEvent
from datapath.kernel import libbpf
from datapath.kernel.perf_buffer import PerfBuffer

_HEAD = len(bytes(CaptureEvent()))
_BEFORE = 0
_UNKNOWN = "gone"
"""Name of a device that was removed meanwhile."""


class Recorder:
    """Turns events into packets of a file."""

    def __init__(self, stream: BinaryIO, told: Mapping[str, Any], most: int) -> None:
        self.frames = 0
        self._most = most
        self._outcomes = told["outcomes"]
        self._names = {int(index): name for index, name in told["devices"].items()}
        self._writer = Writer(stream, [*self._names.values(), _UNKNOWN], f"datapath {__version__}")
        self._epoch = time.time_ns() - time.monotonic_ns()

    @property
    def full(self) -> bool:
        """Whether as many frames as were asked for are there."""
        return bool(self._most) and self.frames >= self._most

    def take(self, record: bytes) -> None:
        """Write one event; a frame counts when both its copies are there."""
        event = CaptureEvent.from_buffer_copy(record)
        if self.full:
            return
        before = event.phase == _BEFORE
        self.frames += not before
        device = event.device if before or not event.sent_by else event.sent_by
        outcome = self._outcomes[event.outcome]
        sends = outcome["verdict"] in ("forward", "answer")
        comment = "before" if before else f"after: {outcome['name']}, {outcome['verdict']}"
        self._writer.packet(
            self._names.get(device, _UNKNOWN),
            event.time + self._epoch,
            record[_HEAD : _HEAD + event.captured],
            event.length,
            outbound=sends and not before,
            comment=comment,
        )


def run(ask: Callable[..., Any], parameters: Mapping[str, str], path: str, most: int) -> int:
    """Capture until the time or the count is up, or until it is interrupted; returns the exit code.

    `ask` (method, path, parameters) talks to the agent; `path` may be `-`.
    """
    with ExitStack() as stack:
        stream = sys.stdout.buffer if path == "-" else stack.enter_context(_opened(path))
        told = ask("POST", "/v1/capture/start", parameters)
        try:
            recorder = Recorder(stream, told, most)
            lost = _record(recorder, Path(told["events"]), told["seconds"], ", ".join(told["attached"]))
        finally:
            ended = ask("POST", "/v1/capture/stop", {})
        stream.flush()
    print(f"{recorder.frames} frames, each before and after, in {path}", file=sys.stderr)
    if lost:
        print(f"{lost} more copies found no room: narrow the filter, or set --snaplen", file=sys.stderr)
    if not ended["was_running"] and not recorder.full:
        print("ended by the agent: the time was up, or the programs were changed", file=sys.stderr)
    return DONE


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    try:
        with Path(path).open("wb") as stream:
            yield stream
    except OSError as error:
        told = {"document": "command line", "path": "--write", "value": path}
        raise Failure(FAILED, [{**told, "message": f"cannot be written: {error.strerror}"}]) from error


def _record(recorder: Recorder, events: Path, seconds: float, where: str) -> int:
    """Returns how many copies were lost."""
    fd = libbpf.pinned(events)
    if fd is None:
        raise Failure(FAILED, [{"document": "node", "path": str(events), "message": "this map is not there"}])
    interrupted = []
    before = {number: signal.signal(number, lambda *_: interrupted.append(1)) for number in _SIGNALS}
    try:
        with libbpf.closing(fd), PerfBuffer(fd, recorder.take) as buffer:
            print(f"capturing on {where} for {seconds} s at most; Ctrl-C ends it", file=sys.stderr)
            end = time.monotonic() + seconds
            while not interrupted and not recorder.full and time.monotonic() < end:
                buffer.poll(100)
            return buffer.lost
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
