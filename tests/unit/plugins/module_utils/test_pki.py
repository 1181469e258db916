"""The mesh's CAs and certificates: issued once, anew for a reason, and another CA with overlap."""

from __future__ import annotations

import datetime
import ipaddress
import stat
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.datapath.plugins.module_utils import pki
from cryptography import x509

SERVER = {
    "name": "server",
    "common_name": "etcd-server",
    "hosts": ["192.0.2.21", "etcd1"],
    "usages": ["server", "client"],
}
AGENT = {"name": "agent", "common_name": "agent-berlin", "usages": ["client"]}
BERLIN = {"name": "berlin", "authority": "cluster", "certificates": [SERVER, AGENT]}
NOW = datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


@pytest.fixture
def keep(tmp_path):
    """Brings the directory to what is asked for; returns what was issued, by name with the reason."""

    def run(*clusters, now=NOW, phase=None, write=True):
        request = {"directory": str(tmp_path), "clusters": clusters or (BERLIN,), "phase": phase}
        kept = pki.Pki({**request, "days": 365, "renew_days": 60, "ca_days": 3650}, now)
        run.answer = kept.bring()
        run.kept = kept
        if write:
            kept.files.flush()
        return {row["name"]: row["reason"] for row in kept.issued}

    return run


def load(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def authorities(path):
    return [x509.load_pem_x509_certificate(each) for each in pki.split(path.read_bytes())]


def verified(directory, certificate, purpose):
    """By OpenSSL, which has not written it."""
    words = ["-CAfile", directory / "bundle.pem", "-purpose", purpose, "-attime", str(int(NOW.timestamp()))]
    done = subprocess.run(["openssl", "verify", *words, certificate], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr


def test_all_is_issued_once(keep, tmp_path):
    assert keep() == {"berlin/server": "is not there", "berlin/agent": "is not there"}
    made = load(tmp_path / "berlin/server.pem")
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("192.0.2.21")]
    assert names.get_values_for_type(x509.DNSName) == ["etcd1"]
    for name, purpose in (("server", "sslserver"), ("server", "sslclient"), ("agent", "sslclient")):
        assert verified(tmp_path / "berlin", tmp_path / f"berlin/{name}.pem", purpose)[0]
    assert not verified(tmp_path / "berlin", tmp_path / "berlin/agent.pem", "sslserver")[0]
    assert keep() == {}
    assert keep.kept.files.changes == {}


def test_nobody_else_reads_anything(keep, tmp_path):
    keep()
    for path in tmp_path.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_dry_run_writes_nothing_and_tells_the_same(keep, tmp_path):
    told = keep(write=False)
    assert list(tmp_path.iterdir()) == []
    assert keep() == told


def test_the_difference_shows_no_key(keep):
    keep(write=False)
    diff = keep.kept.diff()
    assert diff["before"] == ""
    assert "berlin/agent.pem: agent-berlin, serial " in diff["after"]
    assert "BEGIN" not in diff["after"]
    assert "key" not in diff["after"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hosts": ["192.0.2.22"]}, "has other names"),
        ({"common_name": "somebody"}, "has another common name"),
        ({"usages": ["server"]}, "is for another use"),
    ],
)
def test_what_is_not_as_asked_is_issued_anew(keep, change, reason):
    keep()
    assert keep({**BERLIN, "certificates": [{**SERVER, **change}, AGENT]}) == {"berlin/server": reason}


@pytest.mark.parametrize(
    ("later", "reason"), [(304, None), (306, "expires in 59 days"), (364, "expires in 1 days"), (400, "is expired")]
)
def test_certificates_are_renewed_in_time(keep, later, reason):
    keep()
    issued = keep(now=NOW + later * DAY)
    assert issued == ({} if reason is None else {"berlin/server": reason, "berlin/agent": reason})
    assert keep(now=NOW + later * DAY) == {}


def test_a_certificate_that_ends_with_its_ca_is_not_issued_every_time(keep):
    keep()
    last = NOW + 3630 * DAY
    assert set(keep(now=last)) == {"berlin/server", "berlin/agent"}
    assert keep(now=last) == {}
    assert any("expires in 20 days" in each and "rotate_mesh_ca" in each for each in keep.kept.warnings)


@pytest.mark.parametrize("broken", [b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_files_that_are_damaged_are_replaced(keep, tmp_path, broken):
    keep()
    (tmp_path / "berlin/agent.pem").write_bytes(broken)
    assert list(keep()) == ["berlin/agent"]
    (tmp_path / "berlin/agent.key").write_bytes((tmp_path / "berlin/server.key").read_bytes())
    assert keep() == {"berlin/agent": "has another key, or cannot be read"}


def test_a_ca_without_its_key_is_not_replaced(keep, tmp_path):
    keep()
    (tmp_path / "berlin/ca.key").unlink()
    with pytest.raises(pki.PkiError, match="Put it back"):
        keep()


def test_keys_that_nobody_needs_are_removed(keep, tmp_path):
    keep()
    keep({**BERLIN, "certificates": [SERVER]})
    assert sorted(each.name for each in (tmp_path / "berlin").iterdir()) == [
        "bundle.pem", "ca.key", "ca.pem", "server.key", "server.pem",
    ]  # fmt: skip


def test_clusters_have_cas_of_their_own_or_share_one(keep, tmp_path):
    paris = {**BERLIN, "name": "paris"}
    keep(BERLIN, paris)
    assert (tmp_path / "berlin/bundle.pem").read_bytes() != (tmp_path / "paris/bundle.pem").read_bytes()
    shared = [{**each, "authority": "shared"} for each in (BERLIN, paris)]
    assert set(keep(*shared).values()) == {"is of another CA"}
    assert (tmp_path / "berlin/bundle.pem").read_bytes() == (tmp_path / "paris/bundle.pem").read_bytes()
    assert (tmp_path / "ca.key").exists()


# --- A CA that exists already ---


def openssl(*words, cwd):
    subprocess.run(["openssl", *words], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def brought(tmp_path_factory):
    """A CA of OpenSSL's making, with RSA."""
    directory = tmp_path_factory.mktemp("brought")
    openssl(
        "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "3650",
        "-subj", "/CN=Cilium CA", "-addext", "basicConstraints=critical,CA:TRUE",
        cwd=directory,
    )  # fmt: skip
    return {**BERLIN, "ca_certificate": str(directory / "ca.crt"), "ca_key": str(directory / "ca.key")}


def test_a_ca_that_is_brought_issues(keep, tmp_path, brought):
    now = datetime.datetime.now(datetime.timezone.utc)
    keep(brought, now=now)
    words = ["openssl", "verify", "-CAfile", brought["ca_certificate"], tmp_path / "berlin/agent.pem"]
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0
    assert pki.signed(load(tmp_path / "berlin/agent.pem"), load(tmp_path / "berlin/ca.pem"))
    assert keep(brought, now=now) == {}


def test_another_ca_is_not_brought_in_by_the_way(keep, brought):
    keep()
    with pytest.raises(pki.PkiError, match=r"rotate_mesh_ca\.yml"):
        keep(brought)


def test_a_ca_that_is_brought_is_one(keep, tmp_path, brought):
    keep()
    wrong = {
        **brought,
        "ca_certificate": str(tmp_path / "berlin/agent.pem"),
        "ca_key": str(tmp_path / "berlin/agent.key"),
    }
    with pytest.raises(pki.PkiError, match="not the certificate of a CA"):
        keep(wrong)
    with pytest.raises(pki.PkiError, match="not that of the certificate"):
        keep({**brought, "ca_key": str(tmp_path / "berlin/agent.key")})
    with pytest.raises(pki.PkiError, match="no such file"):
        keep({**brought, "ca_key": str(tmp_path / "nothing")})
    with pytest.raises(pki.PkiError, match="a certificate and a key"):
        keep({**brought, "ca_key": None})


def test_more_cas_may_be_trusted(keep, tmp_path, brought):
    keep({**BERLIN, "trusted": [brought["ca_certificate"]]})
    assert len(authorities(tmp_path / "berlin/bundle.pem")) == 2
    assert load(tmp_path / "berlin/ca.pem") in authorities(tmp_path / "berlin/bundle.pem")


# --- Another CA, with overlap ---


def test_a_ca_changes_with_overlap(keep, tmp_path):
    keep()
    bundle, agent = tmp_path / "berlin/bundle.pem", tmp_path / "berlin/agent.pem"
    former, issued = load(tmp_path / "berlin/ca.pem"), agent.read_bytes()

    assert keep(phase="join") == {}
    assert agent.read_bytes() == issued
    first, following = authorities(bundle)
    assert first == former
    assert keep(phase="join") == keep() == {}

    assert set(keep(phase="reissue").values()) == {"is of another CA"}
    assert authorities(bundle) == [following, former]
    assert pki.signed(load(agent), following)
    assert not (tmp_path / "berlin/ca.old.key").exists()
    # Begun anew after an interruption, it goes on where it was.
    assert keep(phase="join") == keep(phase="reissue") == keep() == {}

    assert keep(phase="leave") == {}
    assert authorities(bundle) == [following]
    assert keep(phase="leave") == keep() == {}


def test_the_former_ca_does_not_leave_before_certificates_are_issued_anew(keep):
    keep()
    keep(phase="join")
    with pytest.raises(pki.PkiError, match="not of the new CA yet"):
        keep(phase="leave")


def test_a_ca_that_is_brought_can_be_changed_to(keep, tmp_path, brought):
    now = datetime.datetime.now(datetime.timezone.utc)
    keep(now=now)
    for phase in ("join", "reissue", "leave"):
        keep(brought, now=now, phase=phase)
    assert authorities(tmp_path / "berlin/bundle.pem") == [load(Path(brought["ca_certificate"]))]
    assert keep(brought, now=now, phase="join") == keep(brought, now=now) == {}


def test_an_expired_ca_is_refused(keep):
    keep()
    with pytest.raises(pki.PkiError, match="is expired"):
        keep(now=NOW + 3700 * DAY)
