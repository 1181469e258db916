"""One connection to one endpoint of a store, stage by stage, so that a failure says where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar

from datapath.etcd.certificates import Certificate, parse_der, parse_pem
from datapath.etcd.errors import Stage, StoreError, explain_dns, explain_tcp, explain_tls
from datapath.etcd.waiting import within
from datapath.state.model import StoreEndpoint, StorePlace

T = TypeVar("T")

TIMEOUT = 3.0
"""Seconds that each stage may take."""
LOOK = 0.5
"""Seconds between looks at whether files are others now."""
# What a client of HTTP/2 says first: preface and empty settings (RFC 9113, 3.4).
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_OTHERS = 0o077


@dataclass(frozen=True)
class Credentials:
    """Files in PEM form: whom to trust, and who this node is."""

    ca: Path
    certificate: Path
    key: Path

    @classmethod
    def of(cls, place: StorePlace) -> Credentials:
        """The files that open a store."""
        return cls(Path(place.ca), Path(place.certificate), Path(place.key))

    def load(self) -> tuple[ssl.SSLContext, Certificate]:
        """What a connection needs, and the node's own certificate. Raises StoreError."""
        own = self._own_certificate()
        with _readable(self.ca):
            text = self.ca.read_text(encoding="utf-8")
        # Not create_default_context, which trusts the machine's CAs where there is nothing in the file.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise StoreError(Stage.TLS, f"{self.ca}: there is no CA's certificate in it") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["h2"])
        with _readable(self.key):
            mode = self.key.stat().st_mode & 0o777
        if mode & _OTHERS:
            raise StoreError(Stage.TLS, f"{self.key}: others may read this key (mode {mode:04o})", "mode 0600")
        try:
            with _readable(self.key):
                # A key with a passphrase must not have anybody asked for it.
                context.load_cert_chain(self.certificate, self.key, password=lambda: b"")
        except ssl.SSLError as error:
            reason = (error.reason or str(error)).replace("_", " ").lower()
            raise StoreError(Stage.TLS, f"{self.key}: not the key of {self.certificate}: {reason}") from error
        return context, own

    def stamp(self) -> tuple[object, ...]:
        """Another one where the files are others now."""
        with contextlib.suppress(OSError):
            found = [path.stat() for path in (self.ca, self.certificate, self.key)]
            return tuple((each.st_ino, each.st_mtime_ns) for each in found)
        return ()

    async def replaced(self, stamp: tuple[object, ...]) -> None:
        """Wait until the files are others than at `stamp`, and belong together: they are replaced one by one."""
        while self.stamp() in ((), stamp) or not self._usable():
            await asyncio.sleep(LOOK)

    def _usable(self) -> bool:
        try:
            self.load()
        except StoreError:
            return False
        return True

    def _own_certificate(self) -> Certificate:
        with _readable(self.certificate):
            text = self.certificate.read_text(encoding="utf-8")
        try:
            own = parse_pem(text)
        except ValueError as error:
            raise StoreError(Stage.TLS, f"{self.certificate}: {error}") from error
        problem = own.problem()
        if problem is not None:
            raise StoreError(Stage.TLS, f"{self.certificate}: this node's certificate {problem}", "a new certificate")
        return own


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except ssl.SSLError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        words = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else "not text"
        raise StoreError(Stage.TLS, f"{path}: {words}") from error


@dataclass(frozen=True)
class Reached:
    """An endpoint that took a connection from this node."""

    endpoint: StoreEndpoint
    address: str
    """The one that answered, of those that its name has."""
    certificate: Certificate
    """The server's."""


def _ignore(_: Stage, __: str) -> None:
    pass


async def reach(
    endpoint: StoreEndpoint,
    context: ssl.SSLContext,
    ca: Path,
    passed: Callable[[Stage, str], None] = _ignore,
) -> Reached:
    """Connect, have the certificates checked by both sides, and close again; `passed` is told of every stage.

    Raises StoreError.
    """
    addresses = await _resolve(endpoint)
    passed(Stage.DNS, ", ".join(addresses))
    address, connection = await _connect(endpoint, addresses)
    passed(Stage.TCP, f"{address} port {endpoint.port}")
    try:
        certificate = await _handshake(endpoint, connection, context)
    except (OSError, EOFError, asyncio.TimeoutError) as error:
        raise explain_tls(str(endpoint), error, ca) from error
    passed(Stage.TLS, f"certificate {certificate.serial} until {certificate.not_after:%Y-%m-%d %H:%M} UTC")
    return Reached(endpoint, address, certificate)


async def _resolve(endpoint: StoreEndpoint) -> list[str]:
    asked = asyncio.get_running_loop().getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    try:
        found = await _within(asked)
    except asyncio.TimeoutError as error:
        raise StoreError(Stage.DNS, f"{endpoint.host}: no answer within {TIMEOUT:g} s") from error
    except OSError as error:
        raise explain_dns(endpoint.host, error) from error
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def _connect(endpoint: StoreEndpoint, addresses: list[str]) -> tuple[str, socket.socket]:
    """The first address that takes a connection."""
    failure: Optional[StoreError] = None
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await _within(asyncio.get_running_loop().sock_connect(connection, (address, endpoint.port)))
        except (OSError, asyncio.TimeoutError) as error:
            connection.close()
            cause = error if isinstance(error, OSError) else OSError()
            failure = explain_tcp(str(StoreEndpoint(address, endpoint.port)), cause, TIMEOUT)
            continue
        except BaseException:
            connection.close()
            raise
        return address, connection
    raise failure or StoreError(Stage.DNS, f"{endpoint.host}: the name has no address")


async def _handshake(endpoint: StoreEndpoint, connection: socket.socket, context: ssl.SSLContext) -> Certificate:
    """The server's certificate, once it has accepted ours; the connection is over then.

    With TLS 1.3 a client is ready before the server has looked at its certificate: only the first answer tells.
    """
    opened = asyncio.open_connection(sock=connection, ssl=context, server_hostname=endpoint.host)
    reader, writer = await _within(opened)
    try:
        writer.write(_PREFACE)
        await _within(reader.readexactly(9))
        tls: Any = writer.get_extra_info("ssl_object")
        return parse_der(tls.getpeercert(binary_form=True))
    finally:
        writer.transport.abort()


async def _within(asked: Awaitable[T]) -> T:
    return await within(asked, TIMEOUT)
