import ipaddress
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.sources.mesh.identities import numbers_of
from datapath.sources.mesh.ips import dump_ip, parse_ip, parse_prefix
from datapath.sources.mesh.values import QuarantineError
from datapath.state.remote import Prefix, RemoteIP
from unit.sources.mesh.generated import networks, unicast, values

IP, NET = ipaddress.ip_address, ipaddress.ip_network
HOST = Prefix(IP("10.0.1.5"), 32)
# As Cilium writes it (reference, 4.2).
PUBLISHED = (
    b'{"IP":"10.0.1.5","Mask":null,"HostIP":"192.168.1.10","ID":65538,"Key":0,"Metadata":"cilium-global:c1:node1:123",'
    b'"K8sNamespace":"default","K8sPodName":"web-1","K8sServiceAccount":"default",'
    b'"NamedPorts":[{"Name":"http","Port":8080,"Protocol":"TCP"}]}'
)


def changed(**fields):
    return json.dumps({**json.loads(PUBLISHED), **fields}).encode()


def read(raw, prefix=HOST, own=()):
    return parse_ip(raw, numbers_of(1, 255), prefix, own)


def test_an_address_as_cilium_writes_it():
    assert read(PUBLISHED) == RemoteIP(HOST, 65538, IP("192.168.1.10"), "default", "web-1")


def test_a_network():
    found = read(changed(IP="10.0.1.0", Mask="////AA=="), parse_prefix("10.0.1.0/24"))
    assert found.prefix == Prefix(IP("10.0.1.0"), 24)
    assert str(found.prefix) == "10.0.1.0/24"


@pytest.mark.parametrize("host", [None, ""])
def test_what_go_leaves_out_or_writes_as_nothing(host):
    assert read(json.dumps({"IP": "10.0.1.5", "Mask": None, "HostIP": host}).encode()) == RemoteIP(
        HOST, 0, None, "", ""
    )


@pytest.mark.parametrize("number", [1, 6, 255, 65536, 131071])
def test_identities_of_the_cluster_and_those_that_all_have(number):
    assert read(changed(ID=number)).identity == number


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"IP": "10.0.1.6"}, "IP: 10.0.1.6 is not 10.0.1.5, as its place says"),
        ({"IP": None}, "IP: None is not an address"),
        ({"IP": 167772421}, "IP: 167772421 is not an address"),
        ({"Mask": "////AA=="}, "IP: 10.0.1.5/24 is not 10.0.1.5"),
        ({"Mask": "//8="}, "Mask: '//8=' is not a mask of 32 bits"),
        ({"Mask": []}, "Mask: [] is not a mask"),
        ({"ID": 256}, "ID: 256 is not one of this cluster's, 65536 to 131071"),
        ({"ID": 65535}, "ID: 65535 is not one of"),
        ({"ID": 131072}, "ID: 131072 is not one of"),
        ({"ID": -1}, "ID: -1 is not 0 to"),
        ({"ID": "65538"}, "ID: '65538' is not"),
        ({"HostIP": "127.0.0.1"}, "HostIP: 127.0.0.1 cannot be used"),
        ({"HostIP": "10.9.0.1"}, "HostIP: 10.9.0.1 is in 10.9.0.0/16, which is this cluster's own"),
        ({"HostIP": 1}, "HostIP: 1 is not an address"),
        ({"K8sPodName": "a\nb"}, "K8sPodName: 'a\\nb' is not printable"),
        ({"K8sNamespace": "x" * 254}, "K8sNamespace: "),
    ],
)
def test_quarantine(fields, reason):
    with pytest.raises(QuarantineError) as caught:
        read(changed(**fields), own=[NET("10.9.0.0/16")])
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("text", "mask", "reason"),
    [
        ("10.9.1.5", None, "10.9.1.5 is in 10.9.0.0/16, which is this cluster's own"),
        ("10.8.0.0", "//4AAA==", "10.8.0.0/15 overlaps 10.9.0.0/16, which is this cluster's own"),
        ("0.0.0.0", "AAAAAA==", "0.0.0.0/0 overlaps 0.0.0.0/8, where no packet may go"),
        ("127.0.0.1", None, "127.0.0.1 cannot be used"),
        ("224.0.0.1", None, "224.0.0.1 cannot be used"),
        ("fe80::1", None, "fe80::1 cannot be used"),
    ],
)
def test_addresses_that_are_nobodys_or_ours(text, mask, reason):
    lengths = {"//4AAA==": "/15", "AAAAAA==": "/0"}
    prefix = parse_prefix(text + lengths.get(mask, ""))
    with pytest.raises(QuarantineError) as caught:
        read(changed(IP=text, Mask=mask), prefix, [NET("10.9.0.0/16")])
    assert reason in str(caught.value)


@pytest.mark.parametrize("rest", ["10.0.1.5", "10.0.1.0/24", "fd00::1", "fd00::/64"])
def test_names(rest):
    assert str(parse_prefix(rest)) == rest


@pytest.mark.parametrize(
    "rest", ["", "ten", "10.0.1.5/32", "10.0.1.5/24", "10.0.1.0/33", "fd00:0::1", "FD00::1", "10.0.1.5/", "default/1"]
)
def test_what_is_no_name(rest):
    """One way to write each: two keys for one address would undo each other."""
    with pytest.raises(QuarantineError):
        parse_prefix(rest)


# --- properties ---

prefixes = st.one_of(
    unicast.map(lambda each: Prefix(each, each.max_prefixlen)),
    networks.map(lambda each: Prefix(each.network_address, each.prefixlen)),
)
text = st.from_regex(r"[a-z0-9-]{0,20}", fullmatch=True)
numbers = st.one_of(st.integers(0, 255), st.integers(65536, 131071))
ips = st.builds(RemoteIP, prefixes, numbers, st.none() | unicast, text, text)


@given(ips)
def test_what_is_written_is_read(ip):
    assert parse_prefix(str(ip.prefix)) == ip.prefix
    assert read(dump_ip(ip), ip.prefix) == ip


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_quarantined(raw):
    with suppress(QuarantineError):
        read(raw)


@given(ips, st.sampled_from(sorted(json.loads(PUBLISHED))), values)
def test_any_field_may_be_anything(ip, field, value):
    raw = json.dumps({**json.loads(dump_ip(ip)), field: value}).encode()
    try:
        found = read(raw, ip.prefix)
    except QuarantineError:
        return
    assert found.prefix == ip.prefix
    assert found.identity < 256 or found.identity in numbers_of(1, 255)
