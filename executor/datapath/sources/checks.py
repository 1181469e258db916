"""One health check of one backend: TCP connect or HTTP(S) request, from the node's own address.

A check answers True (healthy), False (not) or None: it could not be made, for a reason that lies in this node
(no descriptor, port or memory left), which says nothing about the backend.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from datapath.state.model import CheckType, HealthCheck, IPAddress

if TYPE_CHECKING:
    import httpx

Done = Callable[[Optional[bool], str], None]
"""Called once with the answer and, unless it is True, the reason as a short phrase."""

_LOCAL_ERRORS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.EAGAIN})
# Close with RST: thousands of checks a second would otherwise leave as many sockets in TIME_WAIT.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def explain(code: int) -> tuple[Optional[bool], str]:
    """The answer and reason for a socket error."""
    if code in _LOCAL_ERRORS:
        return None, f"not checked: {os.strerror(code)}"
    return False, os.strerror(code).lower()


class TcpAttempt:
    """A TCP connection attempt without a task or a stream: about a third of their cost, and there may be thousands.

    `done` is called from the event loop, or not at all after `cancel`.
    """

    __slots__ = ("_done", "_loop", "_socket", "_timeout", "_timer")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: IPAddress, port: int, timeout: float, done: Done
    ) -> None:
        self._loop = loop
        self._done = done
        self._timeout = timeout
        self._timer: Optional[asyncio.TimerHandle] = None
        self._socket: Optional[socket.socket] = None
        try:
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            code = self._socket.connect_ex((str(address), port))
        except OSError as error:
            code = error.errno or errno.EIO
        if code == errno.EINPROGRESS and self._socket is not None:
            loop.add_writer(self._socket.fileno(), self._connected)
            self._timer = loop.call_later(timeout, self._expired)
        else:
            # Through the loop, so that `done` never runs before the constructor has returned.
            self._timer = loop.call_later(0, self._finish, code)

    def cancel(self) -> None:
        """Give up; `done` is not called any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connected(self) -> None:
        assert self._socket is not None
        self._finish(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _expired(self) -> None:
        # A busy event loop may come late to a connection that was made in time: ask the kernel before judging.
        assert self._socket is not None
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        if poll.poll(0):
            self._connected()
        else:
            self.cancel()
            self._done(False, f"no connection within {self._timeout:g} s")

    def _finish(self, code: int) -> None:
        self.cancel()
        if code == 0:
            self._done(True, "")
        else:
            self._done(*explain(code))


class HttpAttempt:
    """An HTTP(S) request as a task; `done` as for `TcpAttempt`."""

    __slots__ = ("_task",)

    def __init__(self, clients: HttpClients, check: HealthCheck, address: IPAddress, port: int, done: Done) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(clients, check, address, port, done))

    def cancel(self) -> None:
        """Give up; `done` is not called any more."""
        self._task.cancel()

    @staticmethod
    async def _run(clients: HttpClients, check: HealthCheck, address: IPAddress, port: int, done: Done) -> None:
        asked = asyncio.ensure_future(clients.status(check, address, port))
        try:
            if not await _within(asked, check.timeout):
                done(False, f"no answer within {check.timeout:g} s")
                return
            status = asked.result()
        except Exception as error:
            done(*_explain_exception(error))
        else:
            healthy = status in check.status
            done(healthy, "" if healthy else f"status {status}")
        finally:
            asked.cancel()


async def _within(asked: asyncio.Future[int], seconds: float) -> bool:
    """Wait for an answer; False where there is none in that time.

    A busy event loop may come late to an answer that was there in time: what it is late is waited for once more.
    """
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    await asyncio.wait({asked}, timeout=seconds)
    late = loop.time() - end
    if not asked.done() and late > 0:
        await asyncio.wait({asked}, timeout=late)
    return asked.done()


def _explain_exception(error: BaseException) -> tuple[Optional[bool], str]:
    """The answer for what httpx raised: the operating system's own error where there is one beneath."""
    cause: Optional[BaseException] = error
    while cause is not None:
        # An SSLError is an OSError too, but its number is OpenSSL's.
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno:
            return explain(cause.errno)
        cause = cause.__cause__ or cause.__context__
    return False, str(error) or type(error).__name__


class HttpClients:
    """HTTP clients, made when the first HTTP check needs one (httpx is the dearest import of the daemon)."""

    def __init__(self) -> None:
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def status(self, check: HealthCheck, address: IPAddress, port: int) -> int:
        """The status code that the backend answers with; nothing is followed, the body is not read."""
        scheme = check.type.value
        host = f"[{address}]" if address.version == 6 else str(address)
        client = self._client(check.verify_tls)
        headers = {"Host": check.host} if check.host else {}
        extensions: dict[str, Any] = {"sni_hostname": check.host} if check.host else {}
        request = client.build_request("GET", f"{scheme}://{host}:{port}{check.path}", headers=headers)
        request.extensions.update(extensions)
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            return response.status_code
        finally:
            await response.aclose()

    async def close(self) -> None:
        """Close what is open."""
        for client in self._clients.values():
            with contextlib.suppress(Exception):
                await client.aclose()
        self._clients.clear()

    def _client(self, verify: bool) -> httpx.AsyncClient:
        if verify not in self._clients:
            import httpx  # noqa: PLC0415 - dear, and most nodes check nothing by HTTP

            context = ssl.create_default_context()
            if not verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            self._clients[verify] = httpx.AsyncClient(
                verify=context,  # the node's own trust store
                trust_env=False,  # a proxy of the environment would answer in the backend's place
                timeout=None,  # noqa: S113 - the check's own timeout covers the whole request
                # A new connection each time: what a client would find, not what an old connection still knows.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                headers={"User-Agent": "datapath-health-check", "Connection": "close"},
            )
        return self._clients[verify]


def start(
    clients: HttpClients, check: HealthCheck, address: IPAddress, port: int, done: Done
) -> TcpAttempt | HttpAttempt:
    """Begin one check of `address`; `port` is used where the check names none."""
    port = check.port or port
    if check.type is CheckType.TCP:
        return TcpAttempt(asyncio.get_running_loop(), address, port, check.timeout, done)
    return HttpAttempt(clients, check, address, port, done)
