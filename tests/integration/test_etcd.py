"""The client of etcd against real stores, with TLS, users and roles."""

import asyncio
import datetime
import json
import signal
import socket
import threading
import time
from contextlib import contextmanager

import pytest

from datapath.etcd import client as client_module
from datapath.etcd.client import Client, Span, connect, prefix
from datapath.etcd.dial import Credentials
from datapath.etcd.errors import CompactedError, LeaseGoneError, Stage, StoreError
from datapath.etcd.operations import Created, Delete, Put
from datapath.etcd.quota import read_quota
from datapath.etcd.writes import Writer
from datapath.state.model import StoreEndpoint
from lib.etcd import Authority, etcd
from netns.topology import wait_for

SERVICES = prefix("cilium/state/services/v1/c2/")


@pytest.fixture(scope="module")
def store(authority, tmp_path_factory):
    with etcd(tmp_path_factory.mktemp("etcd"), authority, "c2") as made:
        yield made


@pytest.fixture
def own(authority, tmp_path):
    """A store that the test may break."""
    with etcd(tmp_path, authority, "c2") as made:
        yield made


def credentials(authority, files):
    return Credentials(authority.path, *files)


def run(store, use, files=None):
    """What `use` returns of a connection as user remote."""

    async def main():
        endpoint = StoreEndpoint(store.address, store.port)
        client = await connect([endpoint], credentials(store.authority, files or store.remote))
        try:
            return await use(client)
        finally:
            client.close()

    return asyncio.run(main())


def refusal(store, files=None, use=None, endpoints=None, ca=None):
    """The error that a connection, or its use, ends with, and how long that took."""

    async def main():
        ends = endpoints or [StoreEndpoint(store.address, store.port)]
        client = await connect(ends, Credentials(ca or store.authority.path, *(files or store.remote)))
        try:
            await use(client)
        finally:
            client.close()

    started = time.monotonic()
    with pytest.raises(StoreError) as caught:
        asyncio.run(main())
    return caught.value, time.monotonic() - started


def fill(store, count, value="{}"):
    """Many keys in few transactions (etcd takes 128 operations in one)."""
    for first in range(0, count, 100):
        puts = [f"put cilium/state/services/v1/c2/default/s{number:05} {value}" for number in range(first, first + 100)]
        store.ctl("txn", data="\n".join(["", *puts, "", "", ""]).encode())


async def everything(client, span=SERVICES, revision=0):
    return [page async for page in client.pages(span, revision)]


# --- reading ---


def test_pages_are_of_one_revision(store):
    fill(store, 500)

    async def use(client):
        pages = []
        async for page in client.pages(SERVICES):
            if not pages:
                await asyncio.to_thread(store.put, "cilium/state/services/v1/c2/default/s00499", "later")
            pages.append(page)
        return pages

    pages = run(store, use)
    assert [len(page.values) for page in pages] == [200, 200, 100]
    assert len({page.revision for page in pages}) == 1
    values = {key: value for page in pages for key, value in page.values.items()}
    assert len(values) == 500
    assert set(values.values()) == {b"{}"}


def test_one_key(store):
    store.put("cilium/cluster-config/c2", '{"id":2}')

    async def use(client):
        return await client.get("cilium/cluster-config/c2"), await client.get("cilium/.heartbeat"), client.reached

    value, missing, reached = run(store, use)
    assert (value, missing) == (b'{"id":2}', None)
    assert reached.certificate.common_name == "etcd-c2"
    assert reached.certificate.problem() is None


def test_the_version(store):
    wanted = store.ctl("endpoint", "status", "-w", "json").stdout
    assert run(store, Client.version) == json.loads(wanted)[0]["Status"]["version"]


# --- watching ---


@contextmanager
def watching(store, starts, changes):
    """Watch in a thread's loop; yields a function that returns the error that the watch ended with."""
    errors = []

    async def main():
        endpoint = StoreEndpoint(store.address, store.port)
        client = await connect([endpoint], credentials(store.authority, store.remote))
        try:
            await client.watch(starts, changes.extend)
        except StoreError as error:
            errors.append(error)
        finally:
            client.close()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()

    def ended(seconds):
        thread.join(seconds)
        assert not thread.is_alive(), f"the watch goes on after {seconds} s"
        return errors[0]

    try:
        yield ended
    finally:
        if thread.is_alive() and store.process.poll() is None:
            store.process.kill()
        thread.join()


def test_a_watch_tells_puts_and_deletions_in_order(own):
    first = own.revision() + 1
    changes = []
    with watching(own, {SERVICES: first, Span(b"cilium/.heartbeat"): first}, changes):
        own.put("cilium/state/services/v1/c2/default/web", "one")
        own.put("cilium/.heartbeat", "now")
        own.put("cilium/state/services/v1/c3/default/web", "another cluster's")
        own.delete("cilium/state/services/v1/c2/default/web")
        wait_for(lambda: len(changes) >= 3, what="three changes")
        # Idle for longer than the silence that means death: the store answers questions.
        time.sleep(client_module.SILENCE + 1)
        own.put("cilium/state/services/v1/c2/default/web", "two")
        wait_for(lambda: len(changes) >= 4, what="a fourth change")
    web = [each for each in changes if each.key in SERVICES]
    assert [(each.value, each.revision) for each in web] == [(b"one", first), (None, first + 3), (b"two", first + 4)]
    assert [each.value for each in changes if each.key not in SERVICES] == [b"now"]


def test_a_watch_resumes_from_its_revision(own):
    first = own.revision() + 1
    for value in ("one", "two", "three"):
        own.put("cilium/state/services/v1/c2/default/web", value)
    changes = []
    with watching(own, {SERVICES: first + 1}, changes):
        wait_for(lambda: len(changes) >= 2, what="what was missed")
    assert [each.value for each in changes] == [b"two", b"three"]


def test_compaction_is_told_by_watches_and_by_ranges(own):
    first = own.revision() + 1
    for value in ("one", "two", "three"):
        own.put("cilium/state/services/v1/c2/default/web", value)
    own.ctl("compact", str(own.revision()))
    with watching(own, {SERVICES: first}, []) as ended:
        assert isinstance(ended(5), CompactedError)
    error, _ = refusal(own, use=lambda client: everything(client, revision=first))
    assert isinstance(error, CompactedError)


# --- a store that goes away ---


def test_a_store_that_hangs_is_noticed_in_seconds(own):
    with watching(own, {SERVICES: 1}, []) as ended:
        time.sleep(1)
        own.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        error = ended(client_module.SILENCE + 3)
        assert error.stage is Stage.STORE
        assert time.monotonic() - started < client_module.SILENCE + 2
    own.process.send_signal(signal.SIGCONT)


def test_a_store_that_is_killed_is_noticed_at_once(own):
    with watching(own, {SERVICES: 1}, []) as ended:
        time.sleep(0.5)
        own.stop(signal.SIGKILL)
        assert ended(2).stage is Stage.STORE


# --- connections that are refused, in words ---


def test_an_unknown_name(store):
    error, seconds = refusal(store, endpoints=[StoreEndpoint("store.invalid", 2379)])
    assert error.stage is Stage.DNS
    assert "store.invalid" in error.message
    assert seconds < 5


def test_nobody_listens(store):
    error, seconds = refusal(store, endpoints=[StoreEndpoint("127.0.0.1", 1)])
    assert (error.stage, error.message) == (Stage.TCP, "127.0.0.1:1: connection refused")
    assert seconds < 1


def test_nobody_answers(store):
    """A listener whose queue is full drops what comes, as a firewall does."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        error, seconds = refusal(store, endpoints=[StoreEndpoint(*full.getsockname())])
        for each in waiting:
            each.close()
    assert error.stage is Stage.TCP
    assert "no answer within 3 s" in error.message
    assert seconds < 4


def test_something_that_speaks_no_tls(store):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error, seconds = refusal(store, endpoints=[StoreEndpoint(*silent.getsockname())])
    assert (error.stage, seconds < 4) == (Stage.TLS, True)
    assert "no TLS handshake in time" in error.message


def test_the_next_endpoint_is_tried(store):
    async def main():
        ends = [StoreEndpoint("127.0.0.1", 1), StoreEndpoint(store.address, store.port)]
        client = await connect(ends, credentials(store.authority, store.remote))
        client.close()
        return client.reached.endpoint

    assert asyncio.run(main()).port == store.port


def test_a_server_of_another_ca(store, tmp_path):
    stranger = Authority(tmp_path / "stranger")
    error, _ = refusal(store, ca=stranger.path)
    assert error.stage is Stage.TLS
    assert "unable to get local issuer certificate" in error.message
    assert str(stranger.path) in error.hint


def test_a_server_that_has_another_name(store):
    other = StoreEndpoint("127.0.0.2", store.port)
    with socket.create_server(("127.0.0.2", 0)) as listening:
        # The store listens on 127.0.0.1 alone: a relay gives it a second address.
        def relay():
            taken, _ = listening.accept()
            with taken, socket.create_connection((store.address, store.port)) as onward:
                taken.settimeout(3)
                onward.sendall(taken.recv(65536))
                taken.sendall(onward.recv(65536))
                taken.recv(65536)

        thread = threading.Thread(target=relay)
        thread.start()
        other = StoreEndpoint(*listening.getsockname())
        error, _ = refusal(store, endpoints=[other])
        thread.join()
    assert error.stage is Stage.TLS
    assert "IP address mismatch" in error.message
    assert "subjectAltName" in error.hint


def test_a_server_whose_certificate_has_expired(authority, tmp_path):
    with etcd(tmp_path, authority, "old") as store:
        store.stop()
        authority.issue("etcd-old", ["127.0.0.1"], lasting=-datetime.timedelta(days=1))
        store.start(healthy=False)
        error, _ = refusal(store)
    assert error.stage is Stage.TLS
    assert "certificate has expired" in error.message


def test_an_own_certificate_that_has_expired(store):
    files = store.authority.issue("late", lasting=-datetime.timedelta(days=1))
    error, _ = refusal(store, files)
    assert error.stage is Stage.TLS
    assert f"{files[0]}: this node's certificate expired on" in error.message


def test_an_own_certificate_of_another_ca(store, tmp_path):
    error, _ = refusal(store, Authority(tmp_path / "stranger").issue("remote"))
    assert error.stage is Stage.TLS
    assert "refuses this node's certificate" in error.message
    assert "trusted-ca-file" in error.hint


def test_files_that_are_not_what_they_should_be(store, tmp_path):
    certificate, key = store.remote
    other = store.authority.issue("other")
    open_key = tmp_path / "open.key"
    open_key.write_bytes(key.read_bytes())
    open_key.chmod(0o640)
    empty = tmp_path / "empty.pem"
    empty.touch(0o600)
    for files, words in (
        ((tmp_path / "none.pem", key), "none.pem: no such file or directory"),
        ((certificate, tmp_path / "none.key"), "none.key: no such file or directory"),
        ((empty, key), "empty.pem: there is no certificate in it"),
        ((certificate, empty), "not the key of"),
        ((certificate, other[1]), "not the key of"),
        ((certificate, open_key), "others may read this key (mode 0640)"),
    ):
        error, _ = refusal(store, files)
        assert error.stage is Stage.TLS
        assert words in error.message
    error, _ = refusal(store, ca=empty)
    assert "empty.pem: there is no CA's certificate in it" in error.message


# --- what a user may not do, in words ---


def test_keys_that_the_role_does_not_have(store):
    error, _ = refusal(store, use=lambda client: client.get("cilium/cluster-config/c3"))
    assert (error.stage, error.message) == (Stage.AUTHORISATION, "reading cilium/cluster-config/c3 is denied")
    span = prefix("secrets/")
    error, _ = refusal(store, use=lambda client: client.watch({span: 1}, [].extend))
    assert (error.stage, error.message) == (Stage.AUTHORISATION, "watching secrets/ is denied")


def test_a_certificate_whose_name_is_no_user(store):
    for name in ("stranger", ""):
        files = store.authority.issue(name)
        error, _ = refusal(store, files, use=lambda client: client.get("cilium/cluster-config/c2"))
        assert error.stage is Stage.AUTHORISATION


def test_whether_everything_may_be_read(store, authority, tmp_path):
    assert run(store, Client.reads_everything) is False
    assert run(store, Client.reads_everything, store._root) is True
    with etcd(tmp_path, authority, "open", auth=False) as unlocked:
        assert run(unlocked, Client.reads_everything) is True


def test_writing_is_refused(store):
    """Not by this client, which cannot write at all: by the store, with the certificate that nodes have."""
    done = store.ctl("put", "cilium/state/services/v1/c2/default/web", "x", check=False, certificate=store.remote)
    assert done.returncode != 0
    assert b"permission denied" in done.stderr


# --- writing ---


def writing(store, use, files=None):
    """What `use` returns of a writer as the cluster's own user."""
    return run(store, lambda client: use(Writer(client), client), files or store.agent)


def test_a_transaction_is_done_whole_or_not_at_all(store):
    async def use(writer, client):
        first = await writer.commit([Put(b"cilium/a", b"1"), Put(b"cilium/b", b"\xff")])
        (entry,) = [each for page in await everything(client, Span(b"cilium/a")) for each in page.entries]
        later = await writer.commit(
            [Put(b"cilium/a", b"2"), Delete(b"cilium/b")], [Created(b"cilium/a", entry.created)]
        )
        never = await writer.commit([Delete(b"cilium/a")], [Created(b"cilium/a", entry.created + 1)])
        absent = await writer.commit([Put(b"cilium/c", b"3")], [Created(b"cilium/c", 0)])
        values = [await client.get(key) for key in ("cilium/a", "cilium/b", "cilium/c")]
        return entry, first, later, never, absent, values, await client.count(prefix("cilium/"))

    store.delete("--prefix", "cilium/")
    entry, first, later, never, absent, values, count = writing(store, use)
    assert (entry.created, entry.revision, entry.lease) == (first, first, 0)
    assert (later, never, absent) == (first + 1, None, first + 2)
    assert values == [b"2", None, b"3"]
    assert count == 2


def test_keys_end_with_their_lease(store):
    async def use(writer, client):
        lease = await writer.grant(60)
        await writer.commit([Put(b"cilium/leased", b"1", lease)])
        (entry,) = [each for page in await everything(client, Span(b"cilium/leased")) for each in page.entries]
        lasting = await writer.time_to_live(lease)
        await writer.revoke(lease)
        after = await client.get("cilium/leased"), await writer.time_to_live(lease)
        for call in (writer.revoke(lease), writer.keep_alive(lease, 60, lambda: None)):
            with pytest.raises(LeaseGoneError):
                await call
        with pytest.raises(LeaseGoneError):
            await writer.commit([Put(b"cilium/leased", b"1", lease)])
        return entry.lease == lease, lasting, after

    assert writing(store, use) == (True, 60, (None, None))


def test_a_lease_is_renewed_until_it_is_gone(store):
    async def use(writer, _):
        lease = await writer.grant(2)
        renewed = []

        async def revoke():
            await asyncio.sleep(3)
            await writer.revoke(lease)

        with pytest.raises(LeaseGoneError):
            await asyncio.gather(writer.keep_alive(lease, 2, lambda: renewed.append(time.monotonic())), revoke())
        return renewed

    assert len(writing(store, use)) >= 4


def test_what_a_store_tells_of_itself(store):
    async def use(writer, client):
        files = credentials(store.authority, store.agent)
        return await writer.condition(), await read_quota(client.reached.endpoint, files)

    condition, quota = writing(store, use)
    assert condition.size >= condition.size_in_use > 0
    assert (condition.alarms, condition.has_leader) == ((), True)
    assert quota == 2 << 30, "etcd's own default"


def test_writing_that_is_not_allowed(store):
    async def use(client):
        await Writer(client).commit([Put(b"cilium/state/services/v1/c2/default/web", b"{}")])

    error, _ = refusal(store, store.remote, use)
    assert error.stage is Stage.AUTHORISATION
    assert "writing cilium/state/services/v1/c2/default/web is denied" in error.message
