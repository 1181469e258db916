"""The command line's side of the socket, against real sockets."""

import re
import socket
import threading

import pytest

from datapath.cli.client import NoAgentError, call
from datapath.cli.errors import Failure


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


def read_request(connection):
    """A whole request: its head and its body come separately."""
    data = b""
    while True:
        data += connection.recv(65536)
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            return data


def serve_once(path, answer):
    """Accept one connection, read its request, send `answer` as it is; returns the thread and the request."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()
    received = []

    def serve():
        connection, _ = server.accept()
        with connection, server:
            received.append(read_request(connection))
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, received


def test_answer(path):
    body = b'{"changed": true}'
    thread, received = serve_once(path, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    assert call(path, "POST", "/v1/apply?check=1", b"{}") == (200, {"changed": True})
    thread.join()
    assert received[0].startswith(b"POST /v1/apply?check=1 HTTP/1.1\r\n")
    assert received[0].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", b"220 ESMTP\r\n", b"HTTP/1.1 200 OK\r\n\r\nno"]
)
def test_an_answer_that_breaks_off_is_no_agent(path, answer):
    thread, _ = serve_once(path, answer)
    with pytest.raises(NoAgentError):
        call(path, "GET", "/v1/status")
    thread.join()


def test_no_socket(path):
    with pytest.raises(NoAgentError, match="no agent answers"):
        call(path, "GET", "/v1/status")


def test_a_stale_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with pytest.raises(NoAgentError, match="refused"):
        call(path, "GET", "/v1/status")


def test_only_root_may_ask(path):
    import os

    thread, _ = serve_once(path, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    path.chmod(0o600)
    path.parent.chmod(0o755)
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        try:
            call(path, "GET", "/v1/status")
        except Failure as failure:
            os._exit(0 if "only root" in failure.errors[0]["message"] else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    call(path, "GET", "/v1/status")
    thread.join()
