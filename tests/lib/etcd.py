"""Real stores: etcd with TLS, and with users and roles as Cilium's clusters have them."""

import datetime
import ipaddress
import json
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """A CA, whose files lie in `directory`."""

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.path = directory / "ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"CA of {directory.name}")])
        builder = _builder(self._name, self._name, self._key, 365 * DAY)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(constraints, critical=True).add_extension(usage, critical=True)
        _write(self.path, builder.sign(self._key, hashes.SHA256()))

    def issue(self, name, hosts=(), lasting=30 * DAY):
        """Certificate and key files for a common name; `hosts` may be served by them."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        builder = _builder(subject, self._name, key, lasting)
        names = [_host(each) for each in hosts]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate, private = (self.directory / f"{name or 'nobody'}.{kind}" for kind in ("pem", "key"))
        _write(certificate, builder.sign(self._key, hashes.SHA256()))
        pem, kind = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        private.write_bytes(key.private_bytes(pem, kind, serialization.NoEncryption()))
        private.chmod(0o600)
        return certificate, private


def _builder(subject, issuer, key, lasting):
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    return builder.not_valid_before(now - 400 * DAY).not_valid_after(now + lasting)


def _host(text):
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _write(path, certificate):
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


class Etcd:
    """A store of one member, in this network namespace or in `namespace`.

    Its users are those of a cluster of the mesh: root, `remote`, which may read what other clusters may, and the
    cluster's own nodes (`agent`).
    """

    def __init__(
        self, directory, authority, cluster, *, address="127.0.0.1", port=None, namespace=None, auth=True, quota=0
    ):
        self.directory, self.authority, self.cluster = directory, authority, cluster
        self.address = address
        self._inside = nullcontext() if namespace is None else namespace
        self.port = port or _free_port()
        self._quota = quota
        self.process = None
        self._server = authority.issue(f"etcd-{cluster}", [address, "localhost"])
        self._root = authority.issue("root")
        self.remote = authority.issue("remote")
        self.agent = authority.issue(f"agent-{cluster}")
        self.start()
        if auth:
            self._authenticate()

    @property
    def endpoint(self):
        return f"https://{self.address}:{self.port}"

    def start(self, healthy=True):
        """Start it; without `healthy`, wait only until it listens."""
        peer = f"http://127.0.0.1:{_free_port()}"
        certificate, key = self._server
        command = [
            "etcd", "--name", "member", "--data-dir", str(self.directory / f"etcd-{self.cluster}"),
            "--listen-client-urls", self.endpoint, "--advertise-client-urls", self.endpoint,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"member={peer}",
            "--client-cert-auth", "--trusted-ca-file", str(self.authority.path),
            "--cert-file", str(certificate), "--key-file", str(key),
            "--heartbeat-interval", "50", "--election-timeout", "500", "--log-level", "warn",
            "--quota-backend-bytes", str(self._quota),
        ]  # fmt: skip
        log = (self.directory / f"etcd-{self.cluster}.log").open("ab")
        with log, self._inside:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
        deadline = time.monotonic() + 60
        while not (self._healthy() if healthy else self._listens()):
            assert self.process.poll() is None, (self.directory / f"etcd-{self.cluster}.log").read_text()
            assert time.monotonic() < deadline, "etcd did not start"
            time.sleep(0.02)

    def _healthy(self):
        return self._listens() and self.ctl("endpoint", "health", check=False).returncode == 0

    def _listens(self):
        with self._inside, socket.socket() as tried:
            return tried.connect_ex((self.address, self.port)) == 0

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(30)

    def ctl(self, *words, check=True, data=None, certificate=None):
        """Run etcdctl, as root unless told otherwise."""
        where = ["--endpoints", self.endpoint, "--cacert", str(self.authority.path)]
        own, key = certificate or self._root
        command = ["etcdctl", *where, "--cert", str(own), "--key", str(key), "--command-timeout", "3s", *words]
        environment = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}
        with self._inside:
            done = subprocess.run(command, env=environment, input=data, capture_output=True, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stderr.decode()}{done.stdout.decode()}"
        return done

    def put(self, key, value):
        # By standard input: a value may begin with a dash, or be binary.
        self.ctl("put", key, data=value if isinstance(value, bytes) else value.encode())

    def delete(self, *words):
        self.ctl("del", *words)

    def revision(self):
        found = json.loads(self.ctl("get", "none", "-w", "json").stdout)
        return found["header"]["revision"]

    def _authenticate(self):
        self.ctl("user", "add", "root", "--no-password")
        self.ctl("user", "grant-role", "root", "root")
        self.ctl("role", "add", "remote")
        for key in ("cilium/.heartbeat", "cilium/state/", f"cilium/synced/{self.cluster}/"):
            self.ctl("role", "grant-permission", "remote", "read", key, "--prefix")
        self.ctl("role", "grant-permission", "remote", "read", f"cilium/cluster-config/{self.cluster}")
        self.ctl("user", "add", "remote", "--no-password")
        self.ctl("user", "grant-role", "remote", "remote")
        agent = f"agent-{self.cluster}"
        self.ctl("user", "add", agent, "--no-password")
        self.ctl("role", "add", agent)
        self.ctl("role", "grant-permission", agent, "readwrite", "cilium/", "--prefix")
        self.ctl("user", "grant-role", agent, agent)
        self.ctl("auth", "enable")


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@contextmanager
def etcd(directory, *arguments, **options):
    """A store that ends with the block."""
    made = Etcd(Path(directory), *arguments, **options)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.process.send_signal(signal.SIGCONT)
            made.process.kill()
            made.process.wait()
