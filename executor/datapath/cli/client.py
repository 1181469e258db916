"""HTTP over the agent's unix socket, with nothing but the standard library (a CLI call must start fast)."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Optional

from datapath.cli.errors import FAILED, Failure

TIMEOUT = 600.0
"""Seconds: an apply of the largest states takes its time, and nobody else can do it."""


class NoAgentError(Exception):
    """Nothing answers on the socket."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(path: Path, method: str, target: str, body: Optional[bytes] = None) -> tuple[int, Any]:
    """The status and the JSON document that the agent answers with. Raises NoAgentError."""
    connection = _UnixConnection(path)
    try:
        connection.request(method, target, body=body, headers={"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except PermissionError as error:
        raise Failure(
            FAILED, [{"document": "agent", "path": str(path), "message": "only root may ask the agent"}]
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoAgentError(f"no agent answers at {path}: {error}") from error
    finally:
        connection.close()
