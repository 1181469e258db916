"""What is told of stores that answered, and of files for peers that no inventory manages."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.ebpf.datapath.plugins.module_utils import pki
from ansible_collections.ebpf.datapath.plugins.plugin_utils import mesh_stores

NOW = datetime.datetime.now(datetime.timezone.utc)
YEARS = datetime.timedelta(days=800)


class Files:
    """A CA with a store's certificate and that of a reader, as files."""

    def __init__(self, directory, now=NOW):
        wanted = [
            {"name": "server", "common_name": "server", "hosts": ["192.0.2.41", "*.example"], "usages": ["server"]},
            {"name": "remote", "common_name": "remote", "usages": ["client"]},
        ]
        clusters = [{"name": "oslo", "authority": "cluster", "certificates": wanted}]
        request = {"directory": str(directory), "clusters": clusters}
        kept = pki.Pki({**request, "days": 365, "renew_days": 60, "ca_days": 730}, now)
        kept.bring()
        kept.files.flush()
        self.server = (directory / "oslo/server.pem").read_text()
        self.peer = {
            "name": "oslo",
            "endpoints": ["https://192.0.2.41:2379"],
            "ca": str(directory / "oslo/ca.pem"),
            "certificate": str(directory / "oslo/remote.pem"),
            "key": str(directory / "oslo/remote.key"),
        }


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("good"))


@pytest.fixture(scope="module")
def expired(tmp_path_factory):
    return Files(tmp_path_factory.mktemp("expired"), NOW - YEARS)


def test_files_that_fit(good):
    assert mesh_stores.of_files(good.peer) == []


def test_what_is_wrong_with_files_is_told_all_at_once(good, expired, tmp_path):
    (tmp_path / "text").write_text("no certificate")
    problems = mesh_stores.of_files(
        {**good.peer, "ca": str(tmp_path / "text"), "certificate": expired.peer["certificate"], "key": "/no"}
    )
    assert len(problems) == 3
    assert any("there is no certificate in it" in each for each in problems)
    assert any("certificate: " in each and "expired on" in each for each in problems)
    assert any("no such file" in each for each in problems)


def test_a_key_of_another_certificate(good, expired):
    (problem,) = mesh_stores.of_files({**good.peer, "key": expired.peer["key"]})
    assert "is not the key of" in problem


def judged(files, certificate, endpoint="https://192.0.2.41:2379", cluster="oslo"):
    target = {"cluster": cluster, "endpoint": endpoint, "member": ""}
    answer = {"endpoint": endpoint, "problem": None, "refused": False, "certificate": certificate}
    (row,) = mesh_stores.judged([target], [answer], {"oslo": files.peer})
    return row


@pytest.mark.parametrize("endpoint", ["https://192.0.2.41:2379", "https://etcd.example:2379"])
def test_a_store_with_a_good_certificate(good, endpoint):
    row = judged(good, good.server, endpoint)
    assert row["problem"] is None
    assert row["serial"]
    (line,) = mesh_stores.lines({"host": "lb1", "stores": [row]})
    assert line == f"lb1: oslo, {endpoint}: serial {row['serial']} until {row['not_after']}"


def test_a_store_with_a_certificate_that_clients_would_refuse(good, expired):
    assert "expired on" in judged(expired, expired.server)["problem"]
    assert "is of no CA in" in judged(expired, good.server)["problem"]
    assert (
        "is for *.example, 192.0.2.41, not for 192.0.2.42"
        in judged(good, good.server, "https://192.0.2.42:2379")["problem"]
    )


def test_stores_of_the_inventory_get_certificates_anyway(good, expired):
    assert judged(good, expired.server, cluster="berlin")["problem"] is None


def test_no_answer_stays_a_problem(good):
    target = {"cluster": "oslo", "endpoint": "https://192.0.2.41:2379", "member": ""}
    answer = {"endpoint": target["endpoint"], "problem": "refused", "refused": True, "certificate": None}
    (row,) = mesh_stores.judged([target], [answer], {"oslo": good.peer})
    assert (row["problem"], row["refused"]) == ("refused", True)
    assert list(mesh_stores.lines({"host": "lb1", "stores": [row]})) == []


def test_skew():
    assert mesh_stores.skew({"clock": "100.5 102.0"}) == 1.5
    assert mesh_stores.skew({}) is None
    assert mesh_stores.skew({"clock": "x y"}) is None
