"""Send requests to the lab's services and count who answers.

    load.py [--count N | --until-eof] [--workers W] [--keep K [--pause S]] TARGET...

A target is as tcp:192.0.2.10:80 or udp:[2001:db8:0:ff::10]:53.

`--until-eof` goes on until standard input ends. Every request is a flow of its own (a new source port); `--keep` adds
K connections to each TCP target that stay open and carry one request after the other, S seconds apart, until the end;
a line `kept` says that all of them are open. One JSON document at the end: for each target requests, answers for each
backend, source addresses that backends saw, the slowest answer in seconds, and failures.
"""

import argparse
import asyncio
import collections
import json
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, Optional

TIMEOUT = 3.0
ENOUGH_FAILURES = 50
"""After which a count is given up: somebody waits for the answer."""
REQUEST = b"GET / HTTP/1.1\r\nHost: lab\r\nConnection: %s\r\n\r\n"


class Target:
    """One service, and what happened there."""

    def __init__(self, text: str) -> None:
        self.name = text
        self.protocol, _, rest = text.partition(":")
        host, _, port = rest.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.requests = 0
        self.backends: collections.Counter[str] = collections.Counter()
        self.sources: collections.Counter[str] = collections.Counter()
        self.failures: list[dict[str, Any]] = []
        self.slowest = 0.0

    async def count(self, request: Callable[[], Awaitable[str]], flow: str = "new", source: str = "") -> list[str]:
        """Send one request, made by the coroutine function `request`, and count it: who answered and the source address
        that it saw, nothing when it failed; `flow` and `source` are what is known of the flow before.
        """
        self.requests += 1
        began = time.time()
        try:
            backend, seen = (await asyncio.wait_for(request(), TIMEOUT)).split()[:2]
        except (OSError, asyncio.TimeoutError, EOFError, ValueError) as error:
            what = {"why": repr(error), "flow": flow, "source": source}
            self.failures.append({"at": began, "took": time.time() - began, **what})
            return []
        self.backends[backend] += 1
        self.sources[seen] += 1
        self.slowest = max(self.slowest, time.time() - began)
        return [backend, seen]

    async def once(self) -> str:
        """One request on a flow of its own."""
        if self.protocol == "udp":
            return await self.datagram()
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            return await ask(reader, writer, b"close")
        finally:
            writer.close()

    async def datagram(self) -> str:
        """One datagram, and the one that comes back."""
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(self.address)
            await loop.sock_sendall(client, b"request")
            return (await loop.sock_recv(client, 2048)).decode()

    def report(self) -> dict[str, Any]:
        """What happened, for JSON."""
        return {
            "requests": self.requests,
            "backends": dict(sorted(self.backends.items())),
            "sources": dict(sorted(self.sources.items())),
            "slowest": round(self.slowest, 4),
            "failures": self.failures[:500],
            "failed": len(self.failures),
        }


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: bytes) -> str:
    """One HTTP request; returns the answer's body."""
    writer.write(REQUEST % connection)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return (await reader.readexactly(length)).decode()


async def work(target: Target, limit: "Limit") -> None:
    """Send requests one after the other until the limit; a failure does not end it."""
    while limit.next() and (limit.left is None or len(target.failures) < ENOUGH_FAILURES):
        if not await target.count(target.once):
            await asyncio.sleep(0.01)


async def keep(target: Target, limit: "Limit", pause: float, opened: Callable[[], None]) -> None:
    """Keep one connection busy until the limit; a break is one failure of flow `<backend>`, and the end."""
    reader, writer = await asyncio.open_connection(*target.address)
    ends = await target.count(lambda: ask(reader, writer, b"keep-alive"), "unknown")
    opened()
    while ends and limit.next(keep=True):
        await asyncio.sleep(pause)
        ends = await target.count(lambda: ask(reader, writer, b"keep-alive"), *ends)
    writer.close()


class Countdown:
    """Says `kept` once it was called so many times."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self) -> None:
        """One of them."""
        self.left -= 1
        if not self.left:
            print("kept", file=sys.stderr, flush=True)


class Limit:
    """Ends the work after a number of requests for each target, or (None) when it is told to."""

    ended = False

    def __init__(self, count: Optional[int]) -> None:
        self.left = count

    def next(self, keep: bool = False) -> bool:
        """Whether one more request may be sent; those of kept connections do not count."""
        if self.left is not None:
            self.left -= not keep
            return self.left >= 0
        return not Limit.ended

    @classmethod
    def end(cls) -> None:
        """End all work that has no number."""
        cls.ended = True


async def main() -> int:
    """Entry point; exit code 1 when a request failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="requests for each target")
    parser.add_argument("--until-eof", action="store_true", help="go on until standard input ends, instead")
    parser.add_argument("--workers", type=int, default=8, help="requests at a time, for each target")
    parser.add_argument("--keep", type=int, default=0, help="connections to each TCP target that stay open")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between the requests of such a connection")
    parser.add_argument("target", nargs="+", type=Target)
    arguments = parser.parse_args()
    if arguments.until_eof:
        asyncio.get_running_loop().add_reader(sys.stdin, Limit.end)
    jobs = []
    opened = Countdown(arguments.keep * sum(target.protocol == "tcp" for target in arguments.target))
    for target in arguments.target:
        limit = Limit(None if arguments.until_eof else arguments.count)
        jobs += [work(target, limit) for _ in range(arguments.workers)]
        kept = arguments.keep if target.protocol == "tcp" else 0
        jobs += [keep(target, limit, arguments.pause, opened) for _ in range(kept)]
    await asyncio.gather(*jobs)
    print(json.dumps({target.name: target.report() for target in arguments.target}))
    return int(any(target.failures for target in arguments.target))


sys.exit(asyncio.run(main()))
