"""`datapath trace` on the real program: every reason that it gives, in the situation that it is about."""

import pytest

from bpf.oracle import slot_hash
from bpf.rig import (
    BACKEND_MACS,
    CLIENT_MAC,
    EMPTY,
    GATEWAY,
    MACS,
    PROTOCOLS,
    RANDOM,
    SIDES,
    SMALL,
    SMALL_MTU,
    TABLE_SIZE,
    WEB,
    WIDE,
    end,
    request,
)
from datapath.compile import layouts
from datapath.kernel import KernelError
from datapath.plan import operations as ops
from datapath.spec.errors import SpecErrors

PAIR = pytest.mark.parametrize(("version", "protocol"), [(4, "tcp"), (6, "udp")])
BOTH = pytest.mark.parametrize("version", [4, 6])


@PAIR
def test_decoded_packets(rig, trace, version, protocol):
    told = trace(version, protocol, ttl=9, length=100)
    side, after, before = SIDES[version], told["after"], told["before"]
    assert (before["source_mac"], before["destination_mac"]) == (CLIENT_MAC, MACS["in0"])
    assert (before["source"], before["source_port"]) == (side.client, 20000)
    assert (before["destination"], before["destination_port"], before["ttl"], before["length"]) == (
        side.vip,
        WEB,
        9,
        100,
    )
    assert after["source_mac"] == MACS["out0"]
    assert (after["source"], after["destination_port"], after["ttl"], after["length"]) == (side.snat, 8080, 8, 100)
    assert before["checksums"] == after["checksums"] == "right"


@PAIR
def test_the_slot_is_the_programs(trace, version, protocol):
    """Each slot of this service has a backend of its own."""
    for sport in (20000, 20001):
        told = trace(version, protocol, port=WIDE, sport=sport)
        assert told["backend"]["backend"] == told["slot"]["backend"]
        slot = slot_hash(SIDES[version].client, sport, WIDE, PROTOCOLS[protocol]) % TABLE_SIZE
        assert told["backend"]["backend"] == end(SIDES[version].gateway.format(slot + 1), 8080)


@BOTH
def test_known_flow_whose_table_changed(rig, trace, version):
    met = rig.run(request(version))
    key = (version, WEB, 6)
    address, other = next(
        (name, n) for (at, name), n in rig.backend_ids.items() if at == key and name != met.destination[0]
    )
    rig.execute(ops.PutLut(rig.lut_id(key), other.to_bytes(4, "little") * TABLE_SIZE))
    told = trace(version)
    assert told["backend"]["backend"] == end(*met.destination)
    assert f"a new flow of this client would go to {end(address, 8080)} (slot {told['slot']['number']})" in told["why"]


@PAIR
def test_backend_that_is_gone(rig, trace, version, protocol):
    met = rig.run(request(version, protocol))
    key = (version, WEB, PROTOCOLS[protocol])
    old = rig.backend_ids[key, met.destination[0]]
    other = next(n for (at, name), n in rig.backend_ids.items() if at == key and name != met.destination[0])
    rig.execute(
        ops.PutLut(rig.lut_id(key), other.to_bytes(4, "little") * TABLE_SIZE),
        ops.PutEntry(layouts.BACKENDS, old.to_bytes(4, "little"), bytes(24 + 4)),
    )
    told = trace(version, protocol)
    assert told["outcome"] == "request_reselected"
    assert f"its backend {end(*met.destination)} is gone" in told["why"][0]
    assert told["backend"]["backend"] == end(*rig.run(request(version, protocol)).destination)


@BOTH
def test_backend_that_takes_no_new_connections(rig, trace, version):
    met = rig.run(request(version))
    key = (version, WEB, 6)
    number = rig.backend_ids[key, met.destination[0]]
    rig.execute(rig.backend(number, *met.destination, 6, lut_id=rig.lut_id(key), state=2))
    assert trace(version, tcp_flags="A")["outcome"] == "request_forwarded"
    told = trace(version, tcp_flags="syn")
    assert told["outcome"] == "request_reselected"
    assert "quarantined and this SYN opens a connection" in told["why"][0]


@PAIR
def test_flow_that_is_too_old(rig, trace, version, protocol):
    rig.run(request(version, protocol))
    rig.age(100)
    told = trace(version, protocol)
    assert told["outcome"] == "request_new_flow"
    assert "cannot be used: it is older than the 60 s" in told["why"][0]


@BOTH
def test_connection_that_is_over(rig, trace, version):
    rig.run(request(version))
    rig.run(request(version, flags="R"))
    told = trace(version)
    assert told["outcome"] == "request_new_flow"
    assert "the connection is over, and this SYN opens another" in told["why"][0]


@PAIR
def test_no_source_port(rig, trace, version, protocol):
    side, port = SIDES[version], GATEWAY
    rig.configure(snat_port_min=1024, snat_port_max=1024)
    rig.run(request(version, protocol, port=port, source=side.far_client))
    told = trace(version, protocol, port=port)
    assert told["outcome"] == "no_snat_port_dropped"
    assert "are taken towards the backend" in told["why"][0]


@BOTH
def test_source_port_out_of_range(trace, version):
    told = trace(version, sport=40000)
    assert told["snat"]["reason"] == "the client's port is outside 1024-29999"


@BOTH
def test_no_flow_answers(trace, version):
    side = SIDES[version]
    told = trace(version, source=side.backend.format(11), sport=8080, destination=side.snat, port=20000)
    assert (told["verdict"], told["outcome"]) == ("pass", "no_service_passed")
    assert "no flow answers to" in told["why"][0]


@PAIR
def test_unknown_port(trace, version, protocol):
    told = trace(version, protocol, port=79)
    assert (told["verdict"], told["outcome"], told["after"]) == ("drop", "unknown_port_dropped", None)
    assert f"{end(SIDES[version].vip, WEB)}/TCP" in told["why"][0]


@PAIR
def test_no_service(trace, version, protocol):
    told = trace(version, protocol, destination=SIDES[version].far_client)
    assert (told["verdict"], told["outcome"], told["service"]) == ("pass", "no_service_passed", None)
    assert told["why"] == [f"no frontend has the address {SIDES[version].far_client}"]


@PAIR
def test_no_backend(rig, trace, version, protocol):
    told = trace(version, protocol, port=EMPTY)
    assert (told["verdict"], told["outcome"]) == ("answer", "no_backend_answered")
    assert (told["backend"], told["after"]["message"]) == (None, "port unreachable")
    assert told["why"] == ["the service has no backend that takes new connections"]
    rig.configure(reject_without_backend=0)
    assert trace(version, protocol, port=EMPTY)["outcome"] == "no_backend_dropped"


@BOTH
def test_empty_slot(rig, trace, version):
    rig.execute(ops.PutLut(rig.lut_id((version, WEB, 6)), bytes(4 * TABLE_SIZE)))
    told = trace(version)
    assert told["outcome"] == "no_backend_answered"
    assert told["why"] == [f"slot {told['slot']['number']} of the table holds no backend"]


@PAIR
@pytest.mark.parametrize("ttl", [0, 1])
def test_ttl_expired(trace, version, protocol, ttl):
    told = trace(version, protocol, ttl=ttl)
    assert (told["verdict"], told["outcome"]) == ("answer", "ttl_expired_answered")
    assert told["after"]["message"] == "time exceeded"
    assert told["after"]["destination_mac"] == CLIENT_MAC


@BOTH
def test_too_big(trace, version):
    told = trace(version, port=SMALL, length=SMALL_MTU + 1)
    assert told["outcome"] == "too_big_answered"
    assert told["after"]["message"].endswith(f", MTU {SMALL_MTU}")
    assert told["backend"]["backend"] == end(SIDES[version].small.format(1), 8080)


@BOTH
def test_backend_behind_a_gateway(trace, version):
    hop = trace(version, port=GATEWAY)["next_hop"]
    assert hop == {"device": "out0", "address": SIDES[version].backend.format(12), "mac": BACKEND_MACS[12]}


@BOTH
def test_random_choice(trace, version):
    told = [trace(version, port=RANDOM) for _ in range(4)]
    assert [each["slot"] for each in told] == [None] * len(told)
    assert "a random slot of the table" in told[0]["why"][1]
    assert {each["backend"]["backend"] for each in told} <= {
        end(SIDES[version].backend.format(n), 8080) for n in (11, 12)
    }


@BOTH
def test_family_that_is_switched_off(rig, trace, version):
    rig.configure(**{f"enable_ipv{version}": 0})
    assert trace(version)["outcome"] == "family_disabled_passed"


def test_device(trace):
    told = trace(4, device="out0")
    assert told["device"] == {"name": "out0", "attached": "native"}
    assert told["before"]["destination_mac"] == MACS["out0"]
    told = trace(4, device="lo")
    assert told["device"] == {"name": "lo", "attached": None}
    assert "lo carries no XDP program" in told["notes"][0]


def test_device_that_does_not_exist(trace):
    with pytest.raises(SpecErrors) as caught:
        trace(4, device="in1")
    assert caught.value.errors[0].nearest == "in0"


def test_a_program_of_another_version_is_refused(rig, lb_object, monkeypatch, tmp_path):
    """An executor that was upgraded but has not converged yet has another program than the one that is loaded."""
    from datapath.kernel.objects import ObjectSource
    from netns.topology import compile_object

    other = compile_object(lb_object.parents[2] / "tests/unit/kernel/objects/xdp_lb.bpf.c", tmp_path)
    monkeypatch.setattr(ObjectSource, "read", lambda *_: other.read_bytes())
    with pytest.raises(KernelError, match="another version"), rig.kernel.second_instance():
        pass
