"""Health checks against real sockets on the loopback."""

import asyncio
import contextlib
import gc
import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.sources import checks
from datapath.sources.health import HealthChecker, HealthMemory, Judge, Target, targets
from datapath.state.merged import HealthKey
from datapath.state.model import Backend, CheckType, Frontend, HealthCheck, Protocol, Service

LOOPBACK = ipaddress.ip_address("127.0.0.1")
TCP = HealthCheck(CheckType.TCP, interval=0.05, timeout=0.05, rise=2, fall=3)


def key(port, service="web", address=LOOPBACK):
    return HealthKey(service, address, port)


@contextlib.contextmanager
def listener(address="127.0.0.1", port=0):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family, backlog=512) as server:
        yield server.getsockname()[1]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append((self.path, self.headers["Host"]))
        code = {"/healthz": 200, "/moved": 302, "/slow": 200}.get(self.path, 503)
        if self.path == "/slow":
            self.server.release.wait(5)
        self.send_response(code)
        self.send_header("Location", "/healthz")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def web_server(context=None):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.release = [], threading.Event()
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        thread.join()
        server.server_close()


async def one_check(check, port, address=LOOPBACK):
    answered = asyncio.get_running_loop().create_future()
    clients = checks.HttpClients()
    checks.start(clients, check, address, port, lambda answer, reason: answered.set_result((answer, reason)))
    try:
        return await asyncio.wait_for(answered, 10)
    finally:
        await clients.close()


# A single check


def test_tcp_accepting():
    with listener() as port:
        assert asyncio.run(one_check(TCP, port)) == (True, "")


def test_tcp_ipv6():
    with listener("::1") as port:
        assert asyncio.run(one_check(TCP, port, ipaddress.ip_address("::1"))) == (True, "")


def test_tcp_refused():
    assert asyncio.run(one_check(TCP, free_port())) == (False, "connection refused")


def test_tcp_silent_backend_times_out():
    # A full accept queue: the kernel drops the SYNs.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        port = server.getsockname()[1]
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        assert asyncio.run(one_check(TCP, port)) == (False, "no connection within 0.05 s")


def test_tcp_connection_made_in_time_counts_although_the_loop_comes_late():
    async def late():
        answers = []
        loop = asyncio.get_running_loop()
        with listener() as port:
            checks.TcpAttempt(loop, LOOPBACK, port, 0.01, lambda *answer: answers.append(answer))
            loop.remove_writer(answers_fd(loop))
            time.sleep(0.03)
            while not answers:
                await asyncio.sleep(0.001)
        return answers

    def answers_fd(loop):
        # Take the attempt's descriptor out of the selector: only the timer can answer now.
        return max(fd for fd in loop._selector.get_map())

    assert asyncio.run(late()) == [(True, "")]


def test_lack_of_descriptors_is_no_verdict():
    import resource

    async def starved():
        loop = asyncio.get_running_loop()
        answered = loop.create_future()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            checks.TcpAttempt(loop, LOOPBACK, 9, 1, lambda *answer: answered.set_result(answer))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return await answered

    answer, reason = asyncio.run(starved())
    assert answer is None
    assert reason.startswith("not checked")


def test_a_cancelled_check_never_answers_and_closes_its_socket():
    async def cancelled():
        answers = []
        before = set(open_descriptors())
        with listener() as port:
            attempt = checks.TcpAttempt(asyncio.get_running_loop(), LOOPBACK, port, 0.01, lambda *a: answers.append(a))
            attempt.cancel()
            await asyncio.sleep(0.03)
        return answers, set(open_descriptors()) - before

    assert asyncio.run(cancelled()) == ([], set())


def open_descriptors():
    from pathlib import Path

    return [path.name for path in Path("/proc/self/fd").iterdir() if path.exists()]


HTTP = HealthCheck(CheckType.HTTP, interval=2, timeout=1, path="/healthz")


@pytest.mark.parametrize(
    ("path", "status", "expected"),
    [
        ("/healthz", (200,), (True, "")),
        ("/broken", (200,), (False, "status 503")),
        ("/broken", (200, 503), (True, "")),
        ("/moved", (200,), (False, "status 302")),
    ],
)
def test_http_status(path, status, expected):
    with web_server() as server:
        check = HealthCheck(CheckType.HTTP, timeout=1, path=path, status=status)
        assert asyncio.run(one_check(check, server.server_port)) == expected
        assert server.requests == [(path, f"127.0.0.1:{server.server_port}")]


def test_http_host_header():
    with web_server() as server:
        check = HealthCheck(CheckType.HTTP, timeout=1, path="/healthz", host="shop.example")
        assert asyncio.run(one_check(check, server.server_port)) == (True, "")
        assert server.requests == [("/healthz", "shop.example")]


def test_http_port_of_the_check_replaces_the_backends():
    with web_server() as server:
        check = HealthCheck(CheckType.HTTP, timeout=1, path="/healthz", port=server.server_port)
        assert asyncio.run(one_check(check, free_port())) == (True, "")


def test_http_ignores_the_environments_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with web_server() as server:
        assert asyncio.run(one_check(HTTP, server.server_port)) == (True, "")


def test_http_refused():
    assert asyncio.run(one_check(HTTP, free_port())) == (False, "connection refused")


def test_http_slow_answer_times_out():
    with web_server() as server:
        check = HealthCheck(CheckType.HTTP, timeout=0.1, path="/slow")
        assert asyncio.run(one_check(check, server.server_port)) == (False, "no answer within 0.1 s")


def test_http_answer_is_waited_for_as_long_as_the_loop_was_late():
    """The loop is busy before the request is sent and beyond the check's time: that says nothing about the backend."""

    async def late(server):
        asyncio.get_running_loop().call_later(0.01, time.sleep, 0.5)
        check = HealthCheck(CheckType.HTTP, timeout=0.2, path="/healthz")
        # Made busy before it is asked: the connection is not even begun then.
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        return await one_check(check, server.server_address[1])

    with web_server() as server:
        assert asyncio.run(late(server)) == (True, "")


def test_http_against_something_else():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        answer_, reason = asyncio.run(one_check(HTTP, server.getsockname()[1]))
        thread.join()
    assert answer_ is False
    assert reason


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop.example"]
    command += [
        "-addext",
        "subjectAltName=DNS:shop.example",
        "-keyout",
        str(folder / "key"),
        "-out",
        str(folder / "cert"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_https(certificate, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "cert", certificate / "key")
    with web_server(context) as server:
        verified = HealthCheck(CheckType.HTTPS, timeout=2, path="/healthz", host="shop.example")
        answer, reason = asyncio.run(one_check(verified, server.server_port))
        assert answer is False
        assert "certificate" in reason.lower()

        unverified = HealthCheck(CheckType.HTTPS, timeout=2, path="/healthz", verify_tls=False)
        assert asyncio.run(one_check(unverified, server.server_port)) == (True, "")

        # The node's own trust store decides, and the name to verify is the check's host.
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert"))
        assert asyncio.run(one_check(verified, server.server_port)) == (True, "")
        other = HealthCheck(CheckType.HTTPS, timeout=2, path="/healthz", host="other.example")
        assert asyncio.run(one_check(other, server.server_port))[0] is False


# Rise and fall


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_judge_changes_exactly_after_an_unbroken_run(answers, rise, fall, healthy):
    """Against the definition: the state is the last one that an unbroken run long enough ended in."""
    check = HealthCheck(CheckType.TCP, rise=rise, fall=fall)
    judge = Judge(healthy)
    expected = healthy
    run = 0
    for index, answer in enumerate(answers):
        run = run + 1 if index and answers[index - 1] == answer else 1
        changed = judge.observe(answer, check)
        should = answer != expected and run >= (rise if answer else fall)
        assert changed == should
        expected = answer if should else expected
        assert judge.healthy == expected


def test_targets_are_the_backends_of_checked_services():
    backends = (Backend(LOOPBACK, 1), Backend(LOOPBACK, 2))
    frontends = (Frontend(LOOPBACK, 80, Protocol.TCP),)
    services = [Service("a", frontends, backends, health_check=TCP), Service("b", frontends, backends)]
    assert targets(services) == [Target(key(1, "a"), TCP), Target(key(2, "a"), TCP)]


# The checker


async def watch(checker, condition, deadline=5.0):
    """Run the checker until `condition(delivered batches)`; returns the batches."""
    batches = []

    async def deliver(changes):
        batches.append(dict(changes))

    task = asyncio.ensure_future(checker.run(deliver))
    end = time.monotonic() + deadline
    try:
        while not condition(batches):
            assert time.monotonic() < end, f"not within {deadline} s: {batches}"
            await asyncio.sleep(0.005)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    return batches


def test_a_backend_fails_and_returns():
    async def scenario():
        checker = HealthChecker()
        with contextlib.ExitStack() as stack:
            port = stack.enter_context(listener())
            checker.update([Target(key(port), TCP)])
            await watch(checker, lambda _: checker.results()[key(port)].checked is not None)
            assert checker.results()[key(port)].healthy
        checker.update([])
        checker.update([Target(key(port), TCP)])
        down = await watch(checker, lambda batches: batches)
        result = checker.results()[key(port)]
        assert (result.healthy, result.reason) == (False, "connection refused")
        checker.update([])
        with listener(port=port):
            checker.update([Target(key(port), TCP)], {key(port)})
            up = await watch(checker, lambda batches: batches)
        return port, down, up

    port, down, up = asyncio.run(scenario())
    assert down == [{key(port): False}]
    assert up == [{key(port): True}]


def test_a_new_backend_counts_as_healthy_until_it_failed_often_enough():
    async def scenario():
        checker = HealthChecker()
        port = free_port()
        checker.update([Target(key(port), TCP)])
        assert checker.results()[key(port)].healthy
        assert checker.results()[key(port)].checked is None
        await watch(checker, lambda _: checker.results()[key(port)].streak == 1)
        assert checker.results()[key(port)].healthy

    asyncio.run(scenario())


def test_a_remembered_backend_stays_unhealthy_without_a_change_being_delivered():
    async def scenario():
        port = free_port()
        checker = HealthChecker()
        checker.update([Target(key(port), TCP)], {key(port)})
        assert not checker.results()[key(port)].healthy
        return await watch(checker, lambda _: checker.results()[key(port)].checked is not None)

    assert asyncio.run(scenario()) == []


def test_update_keeps_what_is_known():
    async def scenario():
        checker = HealthChecker()
        port = free_port()
        checker.update([Target(key(port), TCP)])
        await watch(checker, lambda batches: batches)
        checker.update([Target(key(port), TCP), Target(key(port, "other"), TCP)])
        assert not checker.results()[key(port)].healthy
        assert checker.results()[key(port, "other")].healthy
        slower = HealthCheck(CheckType.TCP, interval=9, timeout=1)
        checker.update([Target(key(port), slower)])
        assert not checker.results()[key(port)].healthy
        checker.update([])
        assert checker.results() == {}

    asyncio.run(scenario())


def test_changes_while_delivering_come_as_one_batch():
    async def scenario():
        checker = HealthChecker()
        ports = [free_port() for _ in range(20)]
        first, added, batches = asyncio.Event(), asyncio.Event(), []

        async def deliver(changes):
            batches.append(changes)
            first.set()
            await added.wait()
            while len(batches) == 1 and any(result.healthy for result in checker.results().values()):
                await asyncio.sleep(0.005)

        # One fails at once, the others while it is being delivered.
        quick = HealthCheck(CheckType.TCP, interval=0.02, timeout=0.02, fall=1)
        checker.update([Target(key(1, "quick"), quick)])
        task = asyncio.ensure_future(checker.run(deliver))
        await asyncio.wait_for(first.wait(), 5)
        checker.update([Target(key(1, "quick"), quick), *(Target(key(port), TCP) for port in ports)])
        added.set()
        deadline = time.monotonic() + 5
        while len(batches) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)
        task.cancel()
        return ports, batches

    ports, batches = asyncio.run(scenario())
    assert batches[0] == {key(1, "quick"): False}
    assert batches[1:] == [{key(port): False for port in ports}]


def test_thousands_of_checks_leave_the_loop_responsive():
    """2,000 targets every second: other work on the loop gets its turn after 0.1 s of the loop's work at most.

    The loop's processor time counts, which other processes on the machine do not change. What Python's collector has to
    look through of hundreds of other tests is not the loop's work.
    """

    async def scenario():
        loop = asyncio.get_running_loop()
        checker = HealthChecker()
        with listener() as port:
            checker.update(
                Target(key(port, f"service {number}"), HealthCheck(CheckType.TCP, interval=1, timeout=0.9))
                for number in range(2000)
            )
            worst = 0.0
            enough, deadline = loop.time() + 2.5, loop.time() + 60
            while loop.time() < enough or not all(result.checked for result in checker.results().values()):
                assert loop.time() < deadline
                before = time.thread_time()
                await asyncio.sleep(0.01)
                worst = max(worst, time.thread_time() - before)
            checker.update([])
        return worst

    gc.collect()
    gc.freeze()
    try:
        assert asyncio.run(scenario()) < 0.1
    finally:
        gc.unfreeze()


# Memory over a restart


def test_memory(tmp_path):
    memory = HealthMemory(tmp_path / "health.json")
    assert memory.load() == frozenset()
    unhealthy = {key(80), key(443, address=ipaddress.ip_address("2001:db8::1"))}
    memory.save(unhealthy)
    assert memory.load() == unhealthy
    memory.remove()
    assert memory.load() == frozenset()


@pytest.mark.parametrize("damaged", ["", "{", "[1]", '[["a", "b", "c"]]', "null"])
def test_damaged_memory_is_no_memory(tmp_path, damaged):
    memory = HealthMemory(tmp_path / "health.json")
    memory.path.write_text(damaged)
    assert memory.load() == frozenset()
