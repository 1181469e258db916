"""Flows over their lives: what is remembered, when it is forgotten, whom a source port belongs to."""

import ipaddress

import pytest
from scapy.layers.l2 import Ether

from bpf.rig import BACKEND_MACS, GATEWAY, PROTOCOLS, RANDOM, SIDES, WEB, ether, flow_ends, ip, l4, reply, request
from datapath.compile.layouts import pack_address
from datapath.kernel.clock import jiffies_hz
from datapath.plan import operations as ops

NEW, ESTABLISHED, CLOSING = range(3)
BOTH = pytest.mark.parametrize("version", [4, 6])
EACH = pytest.mark.parametrize(("version", "protocol"), [(4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")])


def states(rig):
    """States of the only flow's request and reply."""
    ((_, request_value),), ((_, reply_value),) = rig.flows()
    return request_value.state, reply_value.state


def open_flow(rig, version, protocol="tcp", **fields):
    result = rig.run(request(version, protocol, **fields))
    assert result.outcome == "request_new_flow"
    return result


def other_backend(rig, key, address):
    """Id of the other one of a service's two backends."""
    return next(number for (at, name), number in rig.backend_ids.items() if at == key and name != address)


# --- what is remembered ---


@EACH
def test_both_directions_mirror_each_other(rig, version, protocol):
    result = open_flow(rig, version, protocol)
    side = SIDES[version]
    (((request_key, request_value),), ((reply_key, reply_value),)) = rig.flows(PROTOCOLS[protocol])
    client, vip = (side.client, 20000), (side.vip, WEB)
    assert flow_ends(request_key) == (client, vip)
    assert flow_ends(request_value) == ((side.snat, 20000), result.destination)
    assert flow_ends(reply_key) == (result.destination, (side.snat, 20000))
    assert flow_ends(reply_value) == (vip, client)
    key = (version, WEB, PROTOCOLS[protocol])
    for value in (request_value, reply_value):
        assert value.lut_id == rig.lut_id(key)
        assert value.backend_id == rig.backend_ids[key, result.destination[0]]
    assert request_value.last_seen == reply_value.last_seen


@BOTH
def test_tcp_and_udp_do_not_mix(rig, version):
    open_flow(rig, version, "tcp")
    open_flow(rig, version, "udp")
    assert [len(entries) for entries in (*rig.flows(6), *rig.flows(17))] == [1, 1, 1, 1]


@BOTH
def test_flow_stays_with_its_backend_when_the_table_changes(rig, version):
    result = open_flow(rig, version)
    key = (version, WEB, 6)
    other = other_backend(rig, key, result.destination[0])
    rig.execute(ops.PutLut(rig.lut_id(key), other.to_bytes(4, "little") * 251))
    again = rig.run(request(version, flags="PA"))
    assert (again.outcome, again.destination) == ("request_forwarded", result.destination)
    fresh = rig.run(request(version, sport=20001))
    assert fresh.destination != result.destination


@BOTH
def test_ordinary_packets_write_nothing(rig, version):
    result = open_flow(rig, version)
    rig.run(request(version, flags="A"))
    rig.run(reply(version, result), "out0")
    before = {bytes(key): bytes(value) for key, value in rig.kernel.flows()}
    for _ in range(3):
        assert rig.run(request(version, flags="A")).outcome == "request_forwarded"
        assert rig.run(reply(version, result), "out0").outcome == "reply_forwarded"
    assert {bytes(key): bytes(value) for key, value in rig.kernel.flows()} == before


@EACH
@pytest.mark.parametrize("direction", ["request", "reply"])
def test_either_direction_keeps_both_alive(rig, version, protocol, direction):
    result = open_flow(rig, version, protocol)
    rig.age(50)
    if direction == "request":
        rig.run(request(version, protocol, flags="A"))
    else:
        rig.run(reply(version, result, protocol, flags="A"), "out0")
    rig.age(50)
    assert rig.run(request(version, protocol, flags="A")).outcome == "request_forwarded"


# --- TCP's states ---


@BOTH
def test_client_establishes(rig, version):
    result = open_flow(rig, version)
    assert states(rig) == (NEW, NEW)
    rig.run(reply(version, result, flags="SA"), "out0")
    assert states(rig) == (NEW, NEW)
    rig.run(request(version, flags="A"))
    assert states(rig) == (ESTABLISHED, ESTABLISHED)


@BOTH
def test_fin_closes_when_both_have_sent_it(rig, version):
    result = open_flow(rig, version)
    rig.run(request(version, flags="A"))
    rig.run(request(version, flags="FA"))
    assert states(rig) == (ESTABLISHED, ESTABLISHED)
    rig.run(reply(version, result, flags="FA"), "out0")
    assert states(rig) == (CLOSING, CLOSING)


@BOTH
@pytest.mark.parametrize("sender", ["client", "backend"])
def test_reset_closes(rig, version, sender):
    result = open_flow(rig, version)
    rig.run(request(version, flags="A"))
    if sender == "client":
        rig.run(request(version, flags="R"))
    else:
        rig.run(reply(version, result, flags="R"), "out0")
    assert states(rig) == (CLOSING, CLOSING)


@BOTH
def test_udp_has_no_states(rig, version):
    result = open_flow(rig, version, "udp")
    rig.run(reply(version, result, "udp"), "out0")
    rig.age(30)
    rig.run(request(version, "udp"))
    assert states(rig) == (NEW, NEW)


# --- when it is forgotten ---


def establish(rig, version, protocol):
    open_flow(rig, version, protocol)
    rig.run(request(version, protocol, flags="A"))


def close(rig, version, protocol):
    establish(rig, version, protocol)
    rig.run(request(version, protocol, flags="R"))


@BOTH
@pytest.mark.parametrize(
    ("prepare", "protocol", "seconds"),
    [(open_flow, "udp", 60), (open_flow, "tcp", 60), (establish, "tcp", 8000), (close, "tcp", 10)],
)
def test_timeouts(rig, version, prepare, protocol, seconds):
    prepare(rig, version, protocol)
    rig.age(seconds - 1)
    assert rig.run(request(version, protocol, flags="A")).outcome == "request_forwarded"
    rig.forget_flows()
    prepare(rig, version, protocol)
    # Stamps are up to an eighth of the shortest timeout old when they are judged.
    rig.age(seconds + 10 / 8 + 1)
    assert rig.run(request(version, protocol, flags="A")).outcome == "request_new_flow"


@BOTH
def test_syn_on_closing_flow_begins_a_new_one(rig, version):
    close(rig, version, "tcp")
    assert rig.run(request(version, flags="A")).outcome == "request_forwarded"
    assert rig.run(request(version, flags="S")).outcome == "request_new_flow"
    assert states(rig) == (NEW, NEW)


@BOTH
def test_stamps_of_the_future_do_not_expire(rig, version):
    """Another CPU may stamp a flow between our reading the clock and the stamp."""
    open_flow(rig, version)
    rig.age(-2 / jiffies_hz())
    assert rig.run(request(version)).outcome == "request_forwarded"


# --- when the backend changes ---


@EACH
def test_backend_of_another_service_is_gone(rig, version, protocol):
    result = open_flow(rig, version, protocol)
    key = (version, WEB, PROTOCOLS[protocol])
    number = rig.backend_ids[key, result.destination[0]]
    rig.execute(rig.backend(number, result.destination[0], 8080, PROTOCOLS[protocol], lut_id=99))
    # Its own table still names it: nobody else there is usable.
    assert rig.run(request(version, protocol, flags="A")).outcome == "no_backend_answered"


@EACH
def test_id_of_a_new_owner_is_gone(rig, version, protocol):
    result = open_flow(rig, version, protocol, port=GATEWAY)
    key = (version, GATEWAY, PROTOCOLS[protocol])
    number = rig.backend_ids[key, result.destination[0]]
    owner = SIDES[version].backend.format(12)
    rig.execute(rig.backend(number, owner, 8080, PROTOCOLS[protocol], lut_id=rig.lut_id(key)))
    again = rig.run(request(version, protocol, port=GATEWAY, flags="A"))
    assert (again.outcome, again.destination) == ("request_reselected", (owner, 8080))
    assert Ether(again.frame).dst == BACKEND_MACS[12]
    assert rig.run(request(version, protocol, port=GATEWAY, flags="A")).outcome == "request_forwarded"


@BOTH
@pytest.mark.parametrize("state", [1, 2, 3])
def test_inactive_backend_keeps_flows_but_gets_no_connections(rig, version, state):
    result = open_flow(rig, version)
    key = (version, WEB, 6)
    address = result.destination[0]
    number = rig.backend_ids[key, address]
    other = other_backend(rig, key, address)
    rig.execute(
        rig.backend(number, address, 8080, 6, lut_id=rig.lut_id(key), state=state),
        ops.PutLut(rig.lut_id(key), other.to_bytes(4, "little") * 251),
    )
    kept = rig.run(request(version, flags="A"))
    assert (kept.outcome, kept.destination) == ("request_forwarded", result.destination)
    moved = rig.run(request(version, flags="S"))
    assert moved.outcome == "request_reselected"
    assert moved.destination[0] != address


# --- whose a source port is ---


@EACH
@pytest.mark.parametrize("sport", [80, 1023, 30000, 65535])
def test_port_outside_the_range_is_replaced(rig, version, protocol, sport):
    result = open_flow(rig, version, protocol, sport=sport)
    assert 1024 <= result.source[1] <= 29999
    answered = rig.run(reply(version, result, protocol), "out0")
    assert answered.destination == (SIDES[version].client, sport)


@EACH
@pytest.mark.parametrize("sport", [1024, 29999])
def test_port_at_the_ends_of_the_range_is_kept(rig, version, protocol, sport):
    assert open_flow(rig, version, protocol, sport=sport).source[1] == sport


@EACH
def test_two_clients_with_one_port(rig, version, protocol):
    side = SIDES[version]
    first = open_flow(rig, version, protocol, port=GATEWAY)
    second = open_flow(rig, version, protocol, port=GATEWAY, source=side.far_client)
    assert first.destination == second.destination
    assert first.source == (side.snat, 20000)
    assert second.source[1] != 20000
    for result, client in ((first, side.client), (second, side.far_client)):
        answered = rig.run(reply(version, result, protocol), "out0")
        assert (answered.source, answered.destination) == ((side.vip, GATEWAY), (client, 20000))


@EACH
def test_ports_are_found_until_the_range_is_full(rig, version, protocol):
    rig.configure(snat_port_min=20000, snat_port_max=20003)
    ports = set()
    outcomes = []
    for sport in range(30000, 30040):
        result = rig.run(request(version, protocol, port=GATEWAY, sport=sport))
        outcomes.append(result.outcome)
        if result.outcome == "request_new_flow":
            ports.add(result.source[1])
    assert ports == {20000, 20001, 20002, 20003}
    assert outcomes.count("request_new_flow") == 4
    assert set(outcomes[20:]) == {"no_snat_port_dropped"}


@EACH
def test_port_of_an_expired_flow_is_taken_over(rig, version, protocol):
    rig.configure(snat_port_min=20000, snat_port_max=20000)
    far = SIDES[version].far_client
    open_flow(rig, version, protocol, port=GATEWAY)
    assert rig.run(request(version, protocol, port=GATEWAY, source=far)).outcome == "no_snat_port_dropped"
    rig.age(70)
    second = open_flow(rig, version, protocol, port=GATEWAY, source=far)
    assert rig.run(reply(version, second, protocol), "out0").destination[0] == far
    # The first client's entry is still there, but its port is not.
    assert rig.run(request(version, protocol, port=GATEWAY, flags="A")).outcome == "no_snat_port_dropped"


@EACH
def test_flow_whose_port_was_lost_gets_another(rig, version, protocol):
    """As after a race of two CPUs for one port: the reply's entry is another flow's."""
    open_flow(rig, version, protocol, port=GATEWAY)
    _, ((key, value),) = rig.flows()
    value.new_destination[:] = pack_address(ipaddress.ip_address(SIDES[version].far_client))
    rig.put_flow(key, value)
    requests, _ = rig.flows()
    for request_key, request_value in requests:
        request_value.last_seen = (request_value.last_seen - 5 * jiffies_hz()) & 0xFFFFFFFF
        rig.put_flow(request_key, request_value)
    again = rig.run(request(version, protocol, port=GATEWAY, flags="A"))
    assert again.outcome == "request_reselected"
    assert again.source[1] != 20000
    assert rig.run(reply(version, again, protocol), "out0").destination[0] == SIDES[version].client


@EACH
def test_evicted_request_takes_its_reply_up_again(rig, version, protocol):
    first = open_flow(rig, version, protocol, sport=40000)
    rig.run(request(version, protocol, sport=40000, flags="A"))
    state = states(rig)
    ((key, _),), _ = rig.flows()
    rig.delete_flow(key)
    again = rig.run(request(version, protocol, sport=40000, flags="A"))
    assert again.outcome == "request_new_flow"
    assert (again.source, again.destination) == (first.source, first.destination)
    assert states(rig) == state


@EACH
@pytest.mark.parametrize("evicted", ["request", "reply"])
def test_evicted_direction_is_restored_by_the_other(rig, version, protocol, evicted):
    result = open_flow(rig, version, protocol)
    rig.run(request(version, protocol, flags="A"))
    rig.run(reply(version, result, protocol, flags="A"), "out0")
    before = rig.flows()
    rig.age(2)
    ((key, _),) = before[evicted == "reply"]
    rig.delete_flow(key)
    if evicted == "reply":
        assert rig.run(request(version, protocol, flags="A")).outcome == "request_forwarded"
    else:
        assert rig.run(reply(version, result, protocol, flags="A"), "out0").outcome == "reply_forwarded"
    ((restored_key, restored),) = rig.flows()[evicted == "reply"]
    ((_, original),) = before[evicted == "reply"]
    assert bytes(restored_key) == bytes(key)
    assert flow_ends(restored) == flow_ends(original)
    for field in ("backend_id", "lut_id", "state"):
        assert getattr(restored, field) == getattr(original, field)


@BOTH
def test_reply_without_flow_is_not_ours(rig, version):
    result = open_flow(rig, version)
    frame = reply(version, result)
    rig.forget_flows()
    passed = rig.run(frame, "out0")
    assert (passed.outcome, passed.frame) == ("no_service_passed", frame)


@BOTH
def test_frontend_on_the_snat_address_is_served(rig, version):
    """A port of the range can be a frontend of the node's own address: what is no reply is looked up as a request."""
    side = SIDES[version]
    key = (version, WEB, 6)
    *_, entry = rig.service(key, [(side.backend.format(11), 8080)])
    own = pack_address(ipaddress.ip_address(side.snat)) + (8080).to_bytes(2, "big") + entry.key[18:]
    rig.execute(ops.PutEntry(entry.map, own, entry.value))
    try:
        frame = ether() / ip(version, side.client, side.snat) / l4("tcp", 20000, 8080, "S")
        assert rig.run(bytes(frame)).outcome == "request_new_flow"
    finally:
        rig.execute(ops.DeleteEntry(entry.map, own))


# --- algorithm random ---


@EACH
def test_random_uses_all_backends_and_sticks_to_one(rig, version, protocol):
    seen = set()
    for sport in range(20000, 20064):
        first = open_flow(rig, version, protocol, port=RANDOM, sport=sport)
        seen.add(first.destination)
        assert rig.run(request(version, protocol, port=RANDOM, sport=sport, flags="A")).destination == first.destination
    assert len(seen) == 2
    rig.forget_flows()
    repeated = set()
    for _ in range(64):
        repeated.add(open_flow(rig, version, protocol, port=RANDOM).destination)
        rig.forget_flows()
    assert len(repeated) == 2
