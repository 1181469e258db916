"""A load-balancer node with a real agent, a client and backends, in namespaces of their own.

    client 198.51.100.2 -- 198.51.100.1 lb (client0) . (backend0) 203.0.113.1 -- 203.0.113.11, .12, .13 backends
           2001:db8:1::2    2001:db8:1::1                          2001:db8:2::1  2001:db8:2::11, ::12, ::13

VIPs are 192.0.2.10 and 2001:db8::10; the client routes them to the load balancer.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer

from integration import forked
from netns.topology import NetNS, attach_pass, bpffs, veth

ROOT = Path(__file__).parents[2]
VIP, VIP6 = "192.0.2.10", "2001:db8::10"
BACKENDS = tuple(f"203.0.113.1{number}" for number in (1, 2, 3))
BACKENDS6 = tuple(f"2001:db8:2::1{number}" for number in (1, 2, 3))


def service(name="web", backends=BACKENDS[:2], port=8080, **more):
    """A service document item on the IPv4 VIP."""
    frontend = f"{VIP}:80/TCP"
    return {"name": name, "frontends": [frontend], "backends": [f"{each}:{port}" for each in backends], **more}


def document(*services, **values):
    """A whole document: both devices, Maglev, these services."""
    # Small maps: they are dumped and compared often.
    sizes = {"map_max": 1024, "ct_tcp_max": 4096, "ct_any_max": 4096}
    options = {"algorithm": "maglev", "devices": ["client0", "backend0"], **sizes, **values}
    return {"options": {"values": options}, "services": {"items": list(services), "purge": True}}


class Node:
    """The load balancer's namespace, its files under one directory, and its agent."""

    python = sys.executable
    timeout = 120.0
    """Seconds that a command, or the agent's start, may take."""
    confinement = ()
    """Command that runs the agent's command."""

    def __init__(self, directory):
        self.root = directory
        self.client, self.lb, self.backend = NetNS(), NetNS(), NetNS()
        self._notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notifications.bind(str(directory / "notify"))
        self._notifications.settimeout(self.timeout)
        self.process = None
        self._peers = []
        self._set_up_links()

    @property
    def environment(self):
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPYCACHEPREFIX") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": str(ROOT / "executor"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATAPATH_ROOT": str(self.root),
            "LC_ALL": "C.UTF-8",
        }

    @property
    def pins(self):
        return self.root / "sys/fs/bpf/datapath"

    @property
    def desired(self):
        return self.root / "var/lib/datapath/desired.json"

    def _set_up_links(self):
        for namespace in (self.client, self.lb, self.backend):
            # Link-local addresses are usable at once, so that nothing changes later by itself.
            namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0")
        veth(self.client, "eth0", self.lb, "client0")
        veth(self.lb, "backend0", self.backend, "eth0")
        self._peers = [attach_pass(namespace, "eth0") for namespace in (self.client, self.backend)]
        for namespace, device, addresses in (
            (self.client, "eth0", ["198.51.100.2/24", "2001:db8:1::2/64"]),
            (self.lb, "client0", ["198.51.100.1/24", "2001:db8:1::1/64"]),
            (self.lb, "backend0", ["203.0.113.1/24", "2001:db8:2::1/64"]),
            (self.backend, "eth0", [f"{each}/24" for each in BACKENDS] + [f"{each}/64" for each in BACKENDS6]),
        ):
            for address in addresses:
                namespace.run(f"ip address add {address} dev {device}" + (" nodad" if ":" in address else ""))
        self.client.run(f"ip route add {VIP}/32 via 198.51.100.1")
        self.client.run(f"ip route add {VIP6}/128 via 2001:db8:1::1")
        self.lb.run("ip route add default via 198.51.100.2")
        self.lb.run("ip -6 route add default via 2001:db8:1::2")
        # Requests carry the address of the load balancer's default device.
        self.backend.run("ip route add default via 203.0.113.1")
        self.backend.run("ip -6 route add default via 2001:db8:2::1")

    # --- the agent ---

    def start(self, *, ready=True):
        """Start the agent; with `ready`, wait until it says that it is."""
        environment = {**self.environment, "NOTIFY_SOCKET": str(self.root / "notify")}
        log = (self.root / "log").open("ab")
        with log:
            self.process = self.lb.start(
                *self.confinement, self.python, "-m", "datapath", "agent", env=environment, stderr=log
            )
        while ready and "READY=1" not in self._notifications.recv(4096).decode():
            pass
        return self.process

    def stop(self, number=signal.SIGTERM):
        """Stop the agent by a signal; returns its exit code."""
        self.process.send_signal(number)
        code = self.process.wait(30)
        self.process = None
        return code

    @property
    def log(self):
        return (self.root / "log").read_text()

    # --- the command line ---

    def run(self, *arguments, document=None):
        """Run `datapath`; returns the finished process."""
        text = None if document is None else document if isinstance(document, str) else json.dumps(document)
        with self.lb:
            if "DATAPATH_TEST_FORK" in os.environ:
                return forked.run(arguments, self.environment, text, self.timeout)
            return subprocess.run(
                [self.python, "-m", "datapath", *arguments],
                env=self.environment,
                input=text,
                capture_output=True,
                text=True,
                timeout=self.timeout,
                check=False,
            )

    def ask(self, *arguments, document=None, code=0):
        """Run `datapath ... -o json`; asserts its exit code, returns the document."""
        done = self.run(*arguments, "-o", "json", document=document)
        assert done.returncode == code, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def apply(self, wanted, code=0):
        return self.ask("apply", "-", document=wanted, code=code)

    def check(self, wanted, code=0):
        return self.ask("apply", "--check", "-", document=wanted, code=code)

    def backend_row(self, address, port=8080):
        rows = self.ask("service", "list")["services"][0]["backends"]
        return next(row for row in rows if row["backend"] == f"{address}:{port}")

    # --- looking at the kernel, not through the product ---

    def bpftool(self, *arguments):
        with self.lb:
            done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, text=True, check=True)
        return json.loads(done.stdout or "null")

    def dump(self, name):
        """Contents of a pinned map: key bytes -> value bytes."""
        rows = self.bpftool("map", "dump", "pinned", str(self.pins / "maps" / name))
        return {_bytes(row["key"]): _bytes(row["value"]) for row in rows if "value" in row}

    def links(self):
        return {link["ifname"]: link for link in json.loads(self.lb.run("ip -j -d link"))}

    def xdp_program(self, device):
        """Id of the XDP program on a device, None without."""
        return self.links()[device].get("xdp", {}).get("prog", {}).get("id")

    def snapshot(self):
        """What a dry run must not touch: pins, links, qdiscs, neighbours, addresses, routes, sysctls, files."""
        files = {
            str(path.relative_to(self.root)): path.stat().st_mtime_ns
            for path in sorted(self.root.rglob("*"))
            if path.name not in ("notify", "log")
        }
        commands = ("ip -j -d link", "tc -j qdisc", "ip -j address", "ip -j route", "ip -j -6 route", "sysctl -a")
        texts = {command: _stable(self.lb.run(command, check=False)) for command in commands}
        neighbours = {row["dst"] for row in json.loads(self.lb.run("ip -j neigh show nud permanent") or "[]")}
        return {"files": files, "neighbours": neighbours, **texts}

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._notifications.close()
        for link in self._peers:
            os.close(link)
        for namespace in (self.client, self.lb, self.backend):
            namespace.close()


def _bytes(row):
    return bytes(int(each, 16) for each in row)


def _stable(text):
    """Without what changes by itself: counters, timers, entropy."""
    volatile = ("fs.", "kernel.", "vm.", "valid_life_time", "preferred_life_time")
    return [line for line in text.splitlines() if not line.startswith(volatile)] if "=" in text else text


@contextmanager
def node(directory, kind=Node):
    """A node whose namespaces, mounts and processes end with the block."""
    mount = directory / "sys/fs/bpf"
    mount.mkdir(parents=True)
    with bpffs(mount):
        made = kind(directory)
        try:
            yield made
        finally:
            made.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.server.server_address[0].encode()
        self.send_response(self.server.status if self.path == "/healthz" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    status = 200

    def server_bind(self):
        # Not HTTPServer's, which asks a name server for its own name: there is none in these namespaces.
        TCPServer.server_bind(self)

    def handle_error(self, *_):
        pass


class _Server6(_Server):
    address_family = socket.AF_INET6


@contextmanager
def web_server(namespace, address, port=8080):
    """A web server that answers with its own address; `status` is what /healthz answers."""
    with namespace:
        server = (_Server6 if ":" in address else _Server)((address, port), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def web_servers(namespace, *addresses):
    """A web server at each address."""
    with ExitStack() as stack:
        yield [stack.enter_context(web_server(namespace, address)) for address in addresses]


def get(namespace, address, port=80, path="/", timeout=3.0):
    """GET from inside a namespace; returns (status, body) or raises OSError."""
    with namespace:
        connection = http.client.HTTPConnection(address, port, timeout=timeout)
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def answers(namespace, address, count=20, port=80):
    """Addresses of the backends that answered `count` requests."""
    return {get(namespace, address, port)[1] for _ in range(count)}
