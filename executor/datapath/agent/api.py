"""The agent's HTTP side: `datapath.agent.handlers` for the unix socket, metrics for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from datapath.agent import handlers
from datapath.agent.core import Agent
from datapath.agent.metrics import Metrics

T = TypeVar("T")


class Worker:
    """The threads that talk to the kernel, one that changes and one that looks.

    What blocks there never blocks the event loop, and comes in order. A caller that is cancelled leaves it running to
    its end.
    """

    def __init__(self) -> None:
        self._changes = ThreadPoolExecutor(max_workers=1, thread_name_prefix="changes")
        self._looks = ThreadPoolExecutor(max_workers=1, thread_name_prefix="looks")

    async def change(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what may change something."""
        return await asyncio.get_running_loop().run_in_executor(self._changes, function, *arguments)

    async def look(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run what only reads."""
        return await asyncio.get_running_loop().run_in_executor(self._looks, function, *arguments)

    def close(self) -> None:
        """Wait for what is running, drop what is queued."""
        for pool in (self._looks, self._changes):
            pool.shutdown(wait=True, cancel_futures=True)


def application(worker: Worker, agent: Agent, metrics: Metrics, written: Callable[[], Awaitable[None]]) -> Starlette:
    """The API; `written` is awaited after every request that changed the desired state."""

    def run(method: str, path: str, parameters: dict[str, str], body: bytes) -> tuple[int, bytes]:
        status, document = handlers.handle(agent, method, path, parameters, body)
        return status, json.dumps(document, default=str).encode()

    async def answer(request: Request) -> Response:
        body = await request.body()
        parameters = dict(request.query_params)
        turn = worker.look if handlers.only_looks(request.method, parameters) else worker.change
        status, document = await turn(run, request.method, request.url.path, parameters, body)
        if request.method == "POST" and status == 200:
            await written()
        return Response(document, status, media_type="application/json")

    routes = [_metrics_route(worker, metrics), Route("/{path:path}", answer, methods=["GET", "POST"])]
    return Starlette(routes=routes)


def metrics_application(worker: Worker, metrics: Metrics) -> Starlette:
    """Nothing but the metrics, for an address on the network."""
    return Starlette(routes=[_metrics_route(worker, metrics)])


def _metrics_route(worker: Worker, metrics: Metrics) -> Route:
    async def answer(_: Request) -> Response:
        text = await worker.look(metrics.render)
        return PlainTextResponse(text, media_type=metrics.content_type)

    return Route("/metrics", answer, methods=["GET"])


class Listener:
    """A uvicorn server on a socket that is already bound; signals stay the daemon's business."""

    def __init__(self, app: Starlette, bound: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        self._server = _Server(config)
        self._socket = bound
        self._task: Optional[asyncio.Task[None]] = None

    def start(self) -> asyncio.Task[None]:
        """Serve; the task ends when the server does."""
        self._task = asyncio.get_running_loop().create_task(self._server.serve(sockets=[self._socket]))
        return self._task

    async def stop(self) -> None:
        """Finish what is being answered, then close."""
        self._server.should_exit = True
        if self._task is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._socket.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind_unix(path: Path) -> socket.socket:
    """A listening socket that only root can connect to; the writer's lock is held, so one that is there is stale."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        bound.bind(str(path))
    finally:
        os.umask(mask)
    bound.listen(128)
    bound.setblocking(False)
    return bound


def bind_tcp(host: str, port: int) -> socket.socket:
    """A listening socket on `host`, or on every address where that is empty. Raises OSError."""
    if not host and socket.has_dualstack_ipv6():
        bound = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.create_server((host, port), family=family)
    bound.setblocking(False)
    return bound
