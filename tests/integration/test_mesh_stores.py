"""Real stores with the certificates and users that role cluster_mesh gives them, and a change of their CA."""

import contextlib
import io
import json
import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from integration.node import VIP, document, service
from lib.etcd import etcd
from lib.mesh import Cluster
from netns.topology import wait_for

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.ebpf.datapath.plugins.module_utils.pki import Pki, split  # noqa: E402
from ansible_collections.ebpf.datapath.plugins.modules import etcd_users  # noqa: E402
from ansible_collections.ebpf.datapath.plugins.modules.tls_probe import probe  # noqa: E402
from ansible_collections.ebpf.datapath.plugins.plugin_utils import mesh  # noqa: E402

REMOTE = ("203.0.113.21", "203.0.113.22")
STORE = "203.0.113.52"


class Kept:
    """The CA and certificates of a cluster as the control node keeps them, which `lib.etcd` takes for an authority."""

    def __init__(self, directory, cluster, address, followers=("c1",)):
        def host(name, number):
            named = {"cilium_cluster_name": name, "cilium_cluster_id": number, "inventory_dir": str(directory)}
            return {**named, "datapath_node_addresses": [address]}

        hosts = {f"{name}-etcd": host(name, number) for number, name in enumerate([cluster, *followers], start=1)}
        self.clusters = mesh.clusters(hosts)
        self.cluster = self.clusters[cluster]
        self._pki = directory / "pki"
        self.directory = self._pki / cluster
        self.path = self.directory / "bundle.pem"
        self.bring()

    def bring(self, phase=None):
        wanted = mesh.certificates(self.cluster, self.clusters)
        request = {"directory": str(self._pki), "clusters": [wanted], "phase": phase}
        kept = Pki({**request, "days": 365, "renew_days": 60, "ca_days": 3650})
        kept.bring()
        kept.files.flush()
        return len(kept.issued)

    def issue(self, name, _=()):
        files = f"server-{self.cluster['name']}-etcd" if name.startswith("etcd-") else name
        return self.directory / f"{files}.pem", self.directory / f"{files}.key"


def run(module, check=False, **arguments):
    """What a module answers."""
    said = io.StringIO()
    internal = {"_ansible_check_mode": check}
    with patch_module_args({**arguments, **internal}), contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        module.main()
    answer = json.loads(said.getvalue())
    assert not answer.get("failed"), answer
    return answer


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return Kept(tmp_path_factory.mktemp("kept"), "berlin", "127.0.0.1", ("paris", "tokyo"))


@pytest.fixture(scope="module")
def store(kept, tmp_path_factory):
    with etcd(tmp_path_factory.mktemp("store"), kept, "berlin", auth=False) as made:
        yield made


def users(store, kept, check=False, clusters=None):
    certificate, key = kept.issue("root")
    place = {"endpoints": [store.endpoint], "ca": str(kept.path), "certificate": str(certificate), "key": str(key)}
    return run(etcd_users, check, **place, **mesh.access(kept.cluster, clusters or kept.clusters))


def may(store, kept, user, *words):
    done = store.ctl(*words, check=False, certificate=kept.issue(user))
    assert done.returncode == 0 or b"permission denied" in done.stderr, done.stderr
    return done.returncode == 0


def test_users_and_roles_are_brought_once(store, kept):
    told = users(store, kept, check=True)
    assert told["changed"]
    assert json.loads(store.ctl("user", "list", "-w", "json").stdout).get("users") is None
    assert users(store, kept)["commands"] == told["commands"]
    again = users(store, kept)
    assert (again["changed"], again["commands"]) == (False, [])


def test_everybody_may_do_what_is_theirs(store, kept):
    users(store, kept)
    for key in (
        "cilium/cluster-config/berlin",
        "cilium/state/services/v1/berlin/default/web",
        "cilium/cluster-config/x",
    ):
        assert may(store, kept, "agent-berlin", "put", key, "{}")
    assert not may(store, kept, "agent-berlin", "put", "other", "x")
    assert not may(store, kept, "agent-berlin", "user", "add", "me", "--no-password")
    for remote in ("remote", "remote-paris"):
        assert may(store, kept, remote, "get", "cilium/state/", "--prefix")
        assert may(store, kept, remote, "get", "cilium/cluster-config/berlin")
        assert not may(store, kept, remote, "get", "cilium/cluster-config/x")
        assert not may(store, kept, remote, "get", "", "--prefix")
        assert not may(store, kept, remote, "put", "cilium/state/services/v1/berlin/default/web", "{}")
        assert not may(store, kept, remote, "del", "cilium/", "--prefix")
    assert may(store, kept, "local-berlin", "get", "cilium/cluster-config/", "--prefix")
    assert not may(store, kept, "local-berlin", "get", "cilium/state/", "--prefix")
    assert may(store, kept, "admin-berlin", "put", "other", "x")


def test_a_cluster_that_leaves_may_nothing_any_more(store, kept):
    users(store, kept)
    certificate = kept.issue("remote-paris")
    assert store.ctl("get", "cilium/state/", "--prefix", certificate=certificate).returncode == 0
    stayed = {name: cluster for name, cluster in kept.clusters.items() if name != "paris"}
    assert users(store, kept, clusters=stayed)["commands"] == [["user", "delete", "remote-paris"]]
    refused = store.ctl("get", "cilium/state/", "--prefix", check=False, certificate=certificate)
    assert refused.returncode != 0
    assert b"permission denied" in refused.stderr or b"user name" in refused.stderr, refused.stderr


def test_what_answers_is_told_without_a_certificate_of_one_s_own(store, kept):
    answer = probe(store.endpoint, 3)
    server = kept.issue("etcd-berlin")[0].read_text()
    assert (answer["problem"], answer["refused"]) == (None, False)
    assert ssl.PEM_cert_to_DER_cert(answer["certificate"]) == ssl.PEM_cert_to_DER_cert(server)


def test_what_does_not_answer_is_told_in_seconds():
    started = time.monotonic()
    assert probe("https://127.0.0.1:1", 3)["refused"]
    silent = probe("https://192.0.2.254:2379", 1)
    assert not silent["refused"]
    assert silent["problem"]
    assert "not https://HOST:PORT" in probe("http://127.0.0.1:1", 3)["problem"]
    assert time.monotonic() - started < 5


# --- upkeep ---

UPKEEP = """\
- hosts: berlin-etcd
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: ebpf.datapath.cluster_mesh, tasks_from: defragment}
    - ansible.builtin.include_role: {name: ebpf.datapath.cluster_mesh, tasks_from: backup}
"""


@pytest.fixture
def full(kept, tmp_path):
    """A store that takes no writes any more, because one key has had too many values."""
    with etcd(tmp_path, kept, "berlin", auth=False, quota=16 * 1024 * 1024) as store:
        for number in range(100):
            if store.ctl("put", "key", data=bytes([97 + number % 26]) * 1000 * 1000, check=False).returncode:
                break
        assert b"NOSPACE" in store.ctl("alarm", "list").stdout
        assert store.ctl("put", "other", "x", check=False).returncode != 0
        yield store


def upkeep(store, kept, directory):
    """The role's tasks, with this machine for a member."""
    certificate, key = kept.issue("root")
    files = [f"--cacert={kept.path}", f"--cert={certificate}", f"--key={key}"]
    variables = {
        "cluster_mesh_etcdctl": ["etcdctl", f"--endpoints={store.endpoint}", *files, "--command-timeout=10s"],
        "cluster_mesh_directory": str(directory),
        "datapath_clustermesh_backup_dir": str(directory / "backups"),
    }
    named = {"cilium_cluster_name": "berlin", "cilium_cluster_id": 1, "datapath_node_addresses": ["192.0.2.21"]}
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {"etcd": {"hosts": {"berlin-etcd": {**named, **local}}}}
    (directory / "hosts.json").write_text(json.dumps({"all": {"children": hosts}}))
    (directory / "play.yml").write_text(UPKEEP)
    words = ["-i", directory / "hosts.json", directory / "play.yml", "-e", json.dumps(variables)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    command = [sys.executable, "-m", "ansible", "playbook", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_full_store_takes_writes_again_and_is_backed_up(full, kept, tmp_path):
    before = json.loads(full.ctl("endpoint", "status", "-w", "json").stdout)[0]["Status"]["dbSize"]
    upkeep(full, kept, tmp_path)
    assert full.ctl("alarm", "list").stdout == b""
    assert json.loads(full.ctl("endpoint", "status", "-w", "json").stdout)[0]["Status"]["dbSize"] < before / 2
    full.put("other", "x")
    (backup,) = (tmp_path / "backups").iterdir()
    assert backup.stat().st_mode & 0o777 == 0o600
    status = subprocess.run(["etcdctl", "snapshot", "status", backup, "-w", "json"], capture_output=True, check=True)
    # The key as it is, and nothing that it was before.
    assert 1000 * 1000 < json.loads(status.stdout)["totalSize"] < before / 2
    assert not (tmp_path / "backup.db").exists()


# --- another CA, while a node follows the store ---


@pytest.fixture
def c2(agent, tmp_path):
    for address in (*REMOTE, STORE):
        agent.backend.run(f"ip address add {address}/24 dev eth0")
    with etcd(tmp_path, Kept(tmp_path, "c2", STORE), "c2", address=STORE, namespace=agent.backend) as store:
        made = Cluster(store, 2)
        made.publish_itself()
        yield made


def status(node):
    return next(each for each in node.ask("clustermesh", "status")["clusters"] if each["name"] == "c2")


def in_table(node):
    shares = node.ask("maglev", f"{VIP}:80")["shares"]
    return {each["backend"].partition(":")[0] for each in shares if each["slots"]}


def restart(agent, store):
    """The table stays as it is while the store is away."""
    store.stop()
    wait_for(lambda: not status(agent)["connected"], what="the lost connection")
    assert in_table(agent) == set(REMOTE)
    store.start()
    wait_for(lambda: status(agent)["ready"], what="the store again")
    assert in_table(agent) == set(REMOTE)


def accepts(store, files):
    with contextlib.suppress(AssertionError):
        return store.ctl("endpoint", "health", certificate=files, check=False).returncode == 0
    return False


def test_a_ca_changes_with_overlap_while_a_node_follows(agent, c2, tmp_path):
    store, kept = c2.store, c2.store.authority
    c2.publish(REMOTE)
    options = {"cluster_name": "c1", "cluster_id": 1}
    wanted = document(service(backends=(), **{"global": True}), **options)
    agent.apply({**wanted, "clustermesh": {"items": [c2.peer()], "purge": True}})
    wait_for(lambda: in_table(agent) == set(REMOTE), what="the remote backends")
    former = tmp_path / "former.pem", tmp_path / "former.key"
    for path, source in zip(former, kept.issue("root")):
        path.write_bytes(source.read_bytes())
        path.chmod(0o600)

    assert kept.bring("join") == 0
    assert len(split(kept.path.read_bytes())) == 2
    restart(agent, store)

    with agent.backend:
        before = probe(store.endpoint, 3)["certificate"]
    assert kept.bring("reissue") > 0
    # Without a restart: etcd reads its certificate at every handshake.
    with agent.backend:
        assert probe(store.endpoint, 3)["certificate"] != before
    assert status(agent)["connected"]
    assert accepts(store, kept.issue("root"))
    assert accepts(store, former)

    assert kept.bring("leave") == 0
    # The CAs it reads only when it starts, which is why the role restarts members.
    assert accepts(store, former)
    restart(agent, store)
    assert accepts(store, kept.issue("root"))
    assert not accepts(store, former)
    c2.publish(REMOTE[:1])
    wait_for(lambda: in_table(agent) == {REMOTE[0]}, what="the change")
