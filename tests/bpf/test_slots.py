"""The slot of a packet, bit for bit Cilium's."""

import ipaddress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bpf.oracle import slot_hash
from bpf.rig import PROTOCOLS, SIDES, TABLE_SIZE, WIDE, request


def test_oracle_knows_the_published_vector():
    hashed = slot_hash("192.168.1.10", 40000, 80, 6)
    assert hashed == 0x05209851
    assert (hashed % 251, hashed % 16381) == (7, 5594)


@pytest.mark.parametrize("source", ["110.0.11.1", "2001::1"])
def test_oracle_depends_on_every_input(source):
    inputs = (source, 40000, 80, 6)
    changed = [
        slot_hash(str(ipaddress.ip_address(source) + 1), *inputs[1:]),
        slot_hash(source, 40001, *inputs[2:]),
        slot_hash(*inputs[:2], 81, 6),
        slot_hash(*inputs[:3], 17),
        slot_hash(*inputs, seeds=(0xCAFE, 0xEB9F)),
    ]
    assert slot_hash(*inputs) not in changed


def addresses(version):
    """Addresses of which all may be a packet's source."""
    network = ipaddress.ip_network({4: "32.0.0.0/3", 6: "2000::/3"}[version])
    return st.ip_addresses(network=network)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("seeds", [(0x71DCDA46, 0x92505688), (0, 0xFFFFFFFF)])
def test_slot_is_the_oracles(rig, version, protocol, seeds):
    rig.configure(hash_seed4=seeds[0], hash_seed6=seeds[1])

    @settings(max_examples=150, suppress_health_check=list(HealthCheck))
    @given(source=addresses(version), sport=st.integers(0, 65535))
    def check(source, sport):
        rig.forget_flows()
        result = rig.run(request(version, protocol, port=WIDE, source=str(source), sport=sport))
        assert result.outcome == "request_new_flow"
        slot = slot_hash(str(source), sport, WIDE, PROTOCOLS[protocol], seeds=seeds) % TABLE_SIZE
        # rig.py: backend number n of that service is in slot n only.
        assert result.destination[0] == SIDES[version].gateway.format(slot + 1)

    check()
