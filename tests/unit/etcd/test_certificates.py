import datetime

import pytest

from datapath.etcd.certificates import parse_der, parse_pem
from lib.etcd import DAY, Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


def test_what_a_certificate_says(authority):
    from cryptography import x509

    path, _ = authority.issue("remote", ["127.0.0.1", "store.example"], lasting=3 * DAY)
    known = x509.load_pem_x509_certificate(path.read_bytes())
    found = parse_pem("text before it\n" + path.read_text() + authority.path.read_text())
    assert found.common_name == "remote"
    assert int(found.serial, 16) == known.serial_number
    assert (found.not_before, found.not_after) == (known.not_valid_before_utc, known.not_valid_after_utc)


@pytest.mark.parametrize(
    ("when", "problem"), [(-401 * DAY, "is valid only from"), (0 * DAY, None), (4 * DAY, "expired on")]
)
def test_validity(authority, when, problem):
    path, _ = authority.issue("remote", lasting=3 * DAY)
    found = parse_pem(path.read_text()).problem(datetime.datetime.now(datetime.timezone.utc) + when)
    assert found is None if problem is None else found.startswith(problem)


def test_dates_beyond_2049_are_written_another_way(authority):
    path, _ = authority.issue("remote", lasting=30 * 365 * DAY)
    assert parse_pem(path.read_text()).not_after.year >= 2055


def test_no_common_name(authority):
    assert parse_pem(authority.issue("")[0].read_text()).common_name == ""


@pytest.mark.parametrize("text", ["", "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"])
def test_no_certificate(text):
    with pytest.raises(ValueError, match="no certificate"):
        parse_pem(text)


@pytest.mark.parametrize(
    "data", [b"", b"\x30", b"\x30\x82", b"\x30\x03\x30\x01\x00", b"\x30\x84\xff\xff\xff\xff", bytes(40)]
)
def test_what_is_no_certificate(data):
    with pytest.raises(ValueError, match="not a certificate"):
        parse_der(data)


def test_a_certificate_cut_anywhere(authority):
    import ssl

    data = ssl.PEM_cert_to_DER_cert(authority.issue("remote")[0].read_text())
    for length in range(len(data) - 1):
        with pytest.raises(ValueError):
            parse_der(data[:length])
