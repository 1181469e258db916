import ipaddress
import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.sources.mesh.nodes import dump_node, parse_node, parse_node_name
from datapath.sources.mesh.values import QuarantineError
from datapath.state.remote import NodeAddress, RemoteNode
from unit.sources.mesh.generated import networks, unicast, values

IP, NET = ipaddress.ip_address, ipaddress.ip_network
# As Cilium writes it (reference, 4.2).
PUBLISHED = (
    b'{"Name":"node1","Cluster":"c1","IPAddresses":[{"Type":"InternalIP","IP":"192.168.1.10"},'
    b'{"Type":"CiliumInternalIP","IP":"10.0.1.1"}],'
    b'"IPv4AllocCIDR":{"IP":"10.0.1.0","Mask":"////AA=="},"IPv4SecondaryAllocCIDRs":null,'
    b'"IPv6AllocCIDR":null,"IPv6SecondaryAllocCIDRs":null,'
    b'"IPv4HealthIP":"10.0.1.9","IPv6HealthIP":"","IPv4IngressIP":"","IPv6IngressIP":"","ClusterID":1,'
    b'"Source":"custom-resource","EncryptionKey":0,"Labels":{},"Annotations":{},"WireguardPubKey":"","BootID":"x"}'
)


def changed(**fields):
    return json.dumps({**json.loads(PUBLISHED), **fields}).encode()


def read(raw, own=()):
    return parse_node(raw, "c1", 1, "node1", own)


def test_a_node_as_cilium_writes_it():
    addresses = (NodeAddress("InternalIP", IP("192.168.1.10")), NodeAddress("CiliumInternalIP", IP("10.0.1.1")))
    assert read(PUBLISHED) == RemoteNode("c1", 1, "node1", addresses, (NET("10.0.1.0/24"),))


@pytest.mark.parametrize("form", [{"IP": "10.0.1.7", "Mask": "////AA=="}, "10.0.1.0/24", "10.0.1.7/24"])
def test_both_forms_of_networks(form):
    """Cilium reads both from 1.20 on; bits of hosts count for nothing there."""
    assert read(changed(IPv4AllocCIDR=form)).pod_cidrs == (NET("10.0.1.0/24"),)


def test_all_networks_of_a_node():
    node = read(
        changed(
            IPv4SecondaryAllocCIDRs=["10.0.3.0/24", {"IP": "10.0.2.0", "Mask": "///+AA=="}],
            IPv6AllocCIDR={"IP": "fd00::", "Mask": "//////////8AAAAAAAAAAA=="},
            IPv6SecondaryAllocCIDRs=["fd01::/64"],
        )
    )
    wanted = ["10.0.1.0/24", "10.0.3.0/24", "10.0.2.0/23", "fd00::/64", "fd01::/64"]
    assert [str(each) for each in node.pod_cidrs] == wanted


def test_what_go_leaves_out_or_writes_as_null():
    raw = b'{"Name":"node1","Cluster":"c1","IPAddresses":null,"IPv4AllocCIDR":null,"ClusterID":1}'
    assert read(raw) == RemoteNode("c1", 1, "node1", (), ())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"Cluster": "c2"}, "Cluster: 'c2' is not 'c1'"),
        ({"Name": "node2"}, "Name: 'node2' is not 'node1'"),
        ({"ClusterID": 2}, "ClusterID: 2 is not 1"),
        ({"ClusterID": True}, "ClusterID: True is not 1"),
        ({"IPAddresses": {}}, "IPAddresses: {} is not a list"),
        ({"IPAddresses": ["10.0.0.1"]}, "'10.0.0.1' is not an address with its type"),
        ({"IPAddresses": [{"Type": "a b", "IP": "10.0.0.1"}]}, "is not an address with its type"),
        ({"IPAddresses": [{"Type": "InternalIP"}]}, "IPAddresses.InternalIP: None is not an address"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "127.0.0.1"}]}, "127.0.0.1 cannot be used"),
        ({"IPAddresses": [{"Type": "InternalIP", "IP": "10.9.0.1"}]}, "10.9.0.1 is in 10.9.0.0/16, which is this"),
        ({"IPv4AllocCIDR": "10.8.0.0/15"}, "10.8.0.0/15 overlaps 10.9.0.0/16, which is this cluster's own"),
        ({"IPv4AllocCIDR": "10.9.1.0/24"}, "10.9.1.0/24 overlaps 10.9.0.0/16, which is this cluster's own"),
        ({"IPv4SecondaryAllocCIDRs": ["10.9.1.0/24"]}, "which is this cluster's own"),
        ({"IPv4SecondaryAllocCIDRs": ["10.0.1.0/24"]}, "one is there twice"),
        ({"IPv4AllocCIDR": "0.0.0.0/0"}, "where no packet may go"),
        ({"IPv4AllocCIDR": "127.0.0.0/24"}, "where no packet may go"),
        ({"IPv4AllocCIDR": "::/0"}, "::/0 is not IPv4"),
        ({"IPv6AllocCIDR": "::/0"}, "where no packet may go"),
        ({"IPv4AllocCIDR": "ten"}, "'ten' is not a network"),
        ({"IPv4AllocCIDR": 10}, "10 is not a network"),
        ({"IPv4AllocCIDR": {"IP": "ten", "Mask": "////AA=="}}, "is not a network"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "/wD/AA=="}}, "'/wD/AA==' is not a mask of 32 bits"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "////"}}, "'////' is not a mask of 32 bits"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": "ä"}}, "is not a mask of 32 bits"),
        ({"IPv4AllocCIDR": {"IP": "10.0.0.0", "Mask": None}}, "None is not a mask of 32 bits"),
    ],
)
def test_quarantine(fields, reason):
    with pytest.raises(QuarantineError) as caught:
        read(changed(**fields), [NET("10.9.0.0/16"), NET("fd09::/64")])
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_names():
    assert parse_node_name("node1.example.org") == "node1.example.org"


@pytest.mark.parametrize("rest", ["", "Node", "a/b", "-a", "a b", "a" * 254])
def test_what_is_no_name(rest):
    with pytest.raises(QuarantineError):
        parse_node_name(rest)


# --- properties ---

addresses = st.lists(st.builds(NodeAddress, st.sampled_from(["InternalIP", "ExternalIP"]), unicast), max_size=3)
pod_cidrs = st.lists(networks, max_size=4, unique=True).map(lambda each: sorted(each, key=lambda net: net.version))
nodes = st.builds(RemoteNode, st.just("c1"), st.just(1), st.just("node1"), addresses.map(tuple), pod_cidrs.map(tuple))


@given(nodes)
def test_what_is_written_is_read(node):
    assert read(dump_node(node)) == node


@given(nodes)
def test_what_is_written_has_every_field_that_cilium_writes(node):
    assert json.loads(PUBLISHED).keys() <= json.loads(dump_node(node)).keys()


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_quarantined(raw):
    with suppress(QuarantineError):
        read(raw)


@given(nodes, st.sampled_from(sorted(json.loads(PUBLISHED))), values)
def test_any_field_may_be_anything(node, field, value):
    own = NET("10.128.0.0/9")
    raw = json.dumps({**json.loads(dump_node(node)), field: value}).encode()
    try:
        found = read(raw, [own])
    except QuarantineError:
        return
    assert (found.cluster, found.cluster_id, found.name) == ("c1", 1, "node1")
    assert not any(each.address.is_loopback or each.address.is_multicast for each in found.addresses)
    assert not any(each.overlaps(own) for each in found.pod_cidrs if each.version == 4)
