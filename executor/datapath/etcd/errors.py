"""What can stand between this node and a store, in words."""

from __future__ import annotations

import enum
import errno
import os
import ssl
from typing import Optional

from grpclib import GRPCError, Status
from grpclib.exceptions import ProtocolError, StreamTerminatedError


class Stage(enum.Enum):
    """How far a connection came, in the order in which it is made."""

    DNS = "DNS"
    TCP = "TCP"
    TLS = "TLS"
    STORE = "store"
    """It answers, and what it answers is what a store does."""
    AUTHORISATION = "authorisation"
    DATA = "data"


class StoreError(Exception):
    """What went wrong at which stage, and what helps where that is known."""

    def __init__(self, stage: Stage, message: str, hint: Optional[str] = None) -> None:
        super().__init__(f"{stage.value}: {message}")
        self.stage = stage
        self.message = message
        self.hint = hint


class CompactedError(StoreError):
    """The revision that was asked for is no longer kept: everything has to be listed again."""

    def __init__(self) -> None:
        super().__init__(Stage.STORE, "the revision that was asked for is compacted")


class LeaseGoneError(StoreError):
    """The lease has ended, and with it every key that it had."""

    def __init__(self) -> None:
        super().__init__(Stage.STORE, "the lease has ended")


class FullError(StoreError):
    """The store takes nothing more."""

    def __init__(self) -> None:
        hint = "compact and defragment it, or raise its quota, and disarm the alarm (etcdctl alarm disarm)"
        super().__init__(Stage.STORE, "the store is full (NOSPACE)", hint)


_DENIED = "etcd lets its users read and write by role: the certificate's common name is the user"
_LOST = (StreamTerminatedError, ProtocolError, ConnectionError, ssl.SSLError, EOFError)


def explain_dns(host: str, error: OSError) -> StoreError:
    """Why a name has no address."""
    return StoreError(Stage.DNS, f"{host}: {error.strerror or error}", "the endpoint's name, or /etc/hosts and DNS")


def explain_tcp(where: str, error: OSError, seconds: float) -> StoreError:
    """Why there is no connection."""
    if error.errno is None:
        return StoreError(Stage.TCP, f"{where}: no answer within {seconds:g} s", "a firewall, or the wrong address")
    hint = "is etcd running there, and listening on that address?" if error.errno == errno.ECONNREFUSED else None
    return StoreError(Stage.TCP, f"{where}: {os.strerror(error.errno).lower()}", hint)


def explain_tls(where: str, error: BaseException, ca: object) -> StoreError:
    """Why there is no secure connection, although there is one."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _unverified(where, error, ca)
    if isinstance(error, ssl.SSLError) and "ALERT" in (error.reason or ""):
        words = (error.reason or "").partition("ALERT_")[2].replace("_", " ").lower()
        remedy = "is it signed by the CA that etcd has as trusted-ca-file, for client authentication, and valid there?"
        return StoreError(Stage.TLS, f"{where} refuses this node's certificate: {words}", remedy)
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        hint = "does etcd listen with TLS there?" if "wrong version" in reason else None
        return StoreError(Stage.TLS, f"{where}: {reason}", hint)
    if isinstance(error, (ConnectionError, EOFError)):
        remedy = "does etcd listen with TLS there, and does it take this node's certificate?"
        return StoreError(Stage.TLS, f"{where} closed the connection", remedy)
    return StoreError(Stage.TLS, f"{where}: no TLS handshake in time", "is it etcd that listens there?")


def _unverified(where: str, error: ssl.SSLCertVerificationError, ca: object) -> StoreError:
    message = error.verify_message.rstrip(".")
    hint = f"is the server's certificate signed by a CA in {ca}?"
    if "expired" in message or "not yet valid" in message:
        hint = "a new certificate for the server, or the right time on both machines"
    elif "match" in message:
        hint = "the certificate needs the endpoint's name or address as subjectAltName"
    return StoreError(Stage.TLS, f"the certificate of {where} is not accepted: {message}", hint)


def explain_call(error: BaseException, what: str) -> StoreError:
    """Why a call failed; `what` is what was asked for."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, GRPCError):
        return _explain_status(error.status, error.message or "", what)
    if isinstance(error, _LOST):
        return StoreError(Stage.STORE, "the connection was lost")
    return StoreError(Stage.STORE, f"no answer to {what} in time", "is the member overloaded, or without a leader?")


def _explain_status(status: Status, message: str, what: str) -> StoreError:
    words = message.replace("etcdserver: ", "")
    if "compacted" in words:
        return CompactedError()
    if "lease not found" in words:
        return LeaseGoneError()
    if "database space exceeded" in words:
        return FullError()
    if status is Status.PERMISSION_DENIED or "permission denied" in words:
        return StoreError(Stage.AUTHORISATION, f"{what} is denied", _DENIED)
    if status is Status.UNAUTHENTICATED or "user name is empty" in words:
        return StoreError(Stage.AUTHORISATION, f"this node's certificate names no user: {words}", _DENIED)
    return StoreError(Stage.STORE, f"{what}: {words or status.name.lower().replace('_', ' ')}")


def explain_cancelled(reason: str, compact_revision: int, what: str) -> StoreError:
    """Why the store ended a watch."""
    if compact_revision or "compacted" in reason:
        return CompactedError()
    return _explain_status(Status.UNKNOWN, reason or "the watch was ended", what)
