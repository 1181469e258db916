"""What is kept in the own store for this project alone."""

import pytest

from datapath.sources.mesh import own_store


def test_leases_are_read_as_they_are_written():
    prefix = own_store.leases_prefix("c1", own_store.node_owner("lb1"))
    assert prefix == "cilium/.datapath/c1/leases/nodes/lb1/"
    assert own_store.parse_lease(prefix, own_store.lease_key(prefix, 0x6F88A22C2180BA1F)) == 0x6F88A22C2180BA1F
    assert own_store.parse_lease(prefix, f"{prefix}x".encode()) is None


def test_candidates_are_read_as_they_are_written():
    assert own_store.parse_candidate(own_store.dump_candidate("lb1")) == "lb1"


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"node":7}', b"\xff", b"[" * 100000])
def test_a_candidate_that_does_not_tell_who_it_is(raw):
    assert own_store.parse_candidate(raw) == ""
