"""Flows with direct server return whose slot changes owner: who gets them, and what is remembered of whom."""

import itertools

import pytest
from scapy.layers.l2 import Ether

from bpf import oracle
from bpf.rig import (
    AT_EVERY_HOOK,
    BACKEND_MACS,
    CHOICE_MAPS,
    DSR,
    DSR_RANDOM,
    PROTOCOLS,
    SIDES,
    TABLE_SIZE,
    WEB,
    flow_ends,
    pack,
    request,
)
from bpf.test_dsr import DISPATCHES
from datapath.compile import layouts
from datapath.plan import operations as ops

pytestmark = AT_EVERY_HOOK

TCP_RECORDS, ANY_RECORDS = CHOICE_MAPS
OLD, NEW = 11, 12
EVERYWHERE = pytest.mark.parametrize(("dispatch", "version"), list(itertools.product(DISPATCHES, (4, 6))))
# What is chosen and remembered depends on no dispatch.
SHORT = pytest.mark.parametrize("version", [4, 6])


def configure(rig, dispatch="opt", **more):
    rig.configure(forwarding_modes=layouts.MODE_DSR, dsr_dispatch=DISPATCHES[dispatch], **more)


def backend_of(rig, version, **fields):
    """The backend, by its number on out0's link, that a client's packet goes to."""
    fields = {"port": DSR, **fields}
    result = rig.run(request(version, **fields))
    assert result.outcome in ("request_new_flow", "request_forwarded")
    hosts = {mac: host for host, mac in BACKEND_MACS.items()}
    return hosts[Ether(result.frame).dst]


def move(rig, version, protocol="tcp", before=(OLD,), after=(NEW,)):
    """Have the slots of a service change owner; all of them unless said otherwise."""
    key = (version, DSR, PROTOCOLS[protocol])
    rig.put_table(key, before, keep_history=False)
    rig.put_table(key, after)
    return key


@pytest.fixture
def moved(rig, version):
    configure(rig)
    return move(rig, version)


# --- TCP ---


@EVERYWHERE
def test_connection_that_began_before_stays(rig, dispatch, version):
    configure(rig, dispatch)
    key = move(rig, version)
    assert backend_of(rig, version, flags="A") == OLD
    ((flow, record),) = rig.choices(TCP_RECORDS)
    assert flow_ends(flow) == ((SIDES[version].client, 20000), (SIDES[version].vip, DSR))
    assert (flow.protocol, flow.direction) == (6, 0)
    assert (record.backend_id, record.lut_id) == (rig.backend_id(key, OLD), rig.lut_id(key))
    assert record.closing == 0
    assert rig.records() == {TCP_RECORDS: 1}
    for flags in ("PA", "A", "FA"):
        assert backend_of(rig, version, flags=flags) == OLD


@EVERYWHERE
def test_connection_that_begins_goes_to_the_new_owner(rig, dispatch, version):
    configure(rig, dispatch)
    key = move(rig, version)
    assert backend_of(rig, version, flags="S") == NEW
    # A SYN proves nothing yet: it is remembered apart from connections.
    assert rig.records() == {ANY_RECORDS: 1}
    for flags in ("A", "PA", "A"):
        assert backend_of(rig, version, flags=flags) == NEW
    ((_, record),) = rig.choices(TCP_RECORDS)
    assert record.backend_id == rig.backend_id(key, NEW)


@SHORT
def test_repeated_syn(rig, version, moved):
    for _ in range(3):
        assert backend_of(rig, version, flags="S") == NEW
    assert rig.records() == {ANY_RECORDS: 1}


@SHORT
def test_slots_that_kept_their_owner_need_no_record(rig, version):
    configure(rig)
    move(rig, version, before=(OLD, OLD), after=(OLD, NEW))
    stayed = went = 0
    for sport in range(20000, 20060):
        slot = oracle.slot_hash(SIDES[version].client, sport, DSR, 6) % TABLE_SIZE
        assert backend_of(rig, version, sport=sport, flags="A") == OLD
        assert backend_of(rig, version, sport=sport + 1000, flags="S") in (OLD, NEW)
        changed = slot % 2
        stayed, went = stayed + 1 - changed, went + changed
    assert stayed
    assert went
    assert len(rig.choices(TCP_RECORDS)) == went


@SHORT
@pytest.mark.parametrize("flags", ["FA", "R", "RA"])
def test_end_of_a_connection_lets_the_next_one_begin_anew(rig, version, moved, flags):
    assert backend_of(rig, version, flags="A") == OLD
    assert backend_of(rig, version, flags=flags) == OLD
    # The last packets of it still go there.
    assert backend_of(rig, version, flags="A") == OLD
    assert backend_of(rig, version, flags="S") == NEW
    assert backend_of(rig, version, flags="A") == NEW


@SHORT
@pytest.mark.parametrize("flags", ["FA", "R"])
def test_connection_whose_first_packet_here_is_its_last(rig, version, moved, flags):
    assert backend_of(rig, version, flags=flags) == OLD
    assert backend_of(rig, version, flags="S") == NEW


@SHORT
def test_syn_into_a_connection_does_not_move_it(rig, version, moved):
    """Whoever forges a SYN could break it otherwise; the backend answers with a challenge (RFC 9293, 3.10.7.4)."""
    assert backend_of(rig, version, flags="A") == OLD
    assert backend_of(rig, version, flags="S") == OLD
    assert backend_of(rig, version, flags="A") == OLD


@SHORT
def test_record_whose_backend_is_gone(rig, version, moved):
    assert backend_of(rig, version, flags="A") == OLD
    rig.execute(ops.DeleteEntry(layouts.BACKENDS, pack(rig.backend_id(moved, OLD))))
    assert backend_of(rig, version, flags="A") == NEW
    ((_, record),) = rig.choices(TCP_RECORDS)
    assert record.backend_id == rig.backend_id(moved, NEW)


@SHORT
def test_previous_owner_that_is_gone(rig, version, moved):
    rig.execute(ops.DeleteEntry(layouts.BACKENDS, pack(rig.backend_id(moved, OLD))))
    assert backend_of(rig, version, flags="A") == NEW


@SHORT
def test_record_whose_backend_has_become_anothers(rig, version, moved):
    """An id that is used anew, for a service of its own."""
    assert backend_of(rig, version, flags="A") == OLD
    address = SIDES[version].backend.format(OLD)
    rig.execute(rig.backend(rig.backend_id(moved, OLD), address, 8080, 6, lut_id=rig.lut_id((version, WEB, 6))))
    assert backend_of(rig, version, flags="A") == NEW


@SHORT
@pytest.mark.parametrize("state", [1, 2, 3])
def test_inactive_backend_keeps_connections_and_gets_none(rig, version, moved, state):
    assert backend_of(rig, version, flags="A") == OLD
    address = SIDES[version].backend.format(OLD)
    operation = rig.backend(rig.backend_id(moved, OLD), address, 8080, 6, lut_id=rig.lut_id(moved), state=state)
    rig.execute(operation)
    assert backend_of(rig, version, flags="A") == OLD
    assert backend_of(rig, version, flags="A", sport=20001) == OLD
    assert backend_of(rig, version, flags="S") == NEW


@SHORT
def test_service_without_backends_keeps_connections(rig, version):
    """The last backend drains: its connections go on, new ones are refused."""
    configure(rig)
    key = move(rig, version, after=(OLD,))
    rig.execute(ops.PutLut(rig.lut_id(key), bytes(4 * TABLE_SIZE), True))
    assert backend_of(rig, version, flags="A") == OLD
    assert rig.run(request(version, port=DSR, sport=20001)).outcome == "no_backend_answered"


@SHORT
def test_two_changes_keep_what_is_recorded(rig, version):
    """A slot that moved away and back: flows of either owner stay where their packets were seen."""
    configure(rig)
    key = move(rig, version)
    assert backend_of(rig, version, flags="A", sport=20000) == OLD
    assert backend_of(rig, version, flags="S", sport=20001) == NEW
    assert backend_of(rig, version, flags="A", sport=20001) == NEW
    rig.put_table(key, (OLD,))
    assert backend_of(rig, version, flags="A", sport=20000) == OLD
    assert backend_of(rig, version, flags="A", sport=20001) == NEW
    # Not seen between the changes: by now most likely the owner before the last one.
    assert backend_of(rig, version, flags="A", sport=20002) == NEW
    assert backend_of(rig, version, flags="S", sport=20003) == OLD


@SHORT
def test_another_clients_packets_have_records_of_their_own(rig, version, moved):
    assert backend_of(rig, version, flags="A") == OLD
    assert backend_of(rig, version, flags="S", source=SIDES[version].far_client) == NEW
    assert rig.records() == {TCP_RECORDS: 1, ANY_RECORDS: 1}


@SHORT
def test_old_records_decide_nothing(rig, version, moved):
    assert backend_of(rig, version, flags="S") == NEW
    rig.age_choices(59)
    assert backend_of(rig, version, flags="A", sport=20000) == NEW
    rig.forget_flows()
    assert backend_of(rig, version, flags="S") == NEW
    # Stamps are up to an eighth of the shortest timeout old when they are judged.
    rig.age_choices(60 + 10 / 8 + 1)
    assert backend_of(rig, version, flags="A") == OLD
    rig.age_choices(7999)
    assert backend_of(rig, version, flags="S") == OLD
    rig.age_choices(8000 + 10 / 8 + 1)
    assert backend_of(rig, version, flags="S") == NEW


@SHORT
def test_traffic_keeps_a_record_alive(rig, version, moved):
    for _ in range(3):
        assert backend_of(rig, version, flags="A") == OLD
        rig.age_choices(7000)
    assert backend_of(rig, version, flags="S") == OLD


@SHORT
def test_ordinary_packets_write_nothing(rig, version, moved):
    backend_of(rig, version, flags="A")
    before = rig.entries(TCP_RECORDS)
    for _ in range(5):
        backend_of(rig, version, flags="PA")
    assert rig.entries(TCP_RECORDS) == before


@SHORT
def test_refused_packets_leave_no_record(rig, version, moved):
    """Not even one that is refused behind the choice."""
    for fields in ({"ttl": 1}, {"source": {4: "224.0.0.1", 6: "ff02::1"}[version]}):
        result = rig.run(request(version, port=DSR, flags="A", **fields))
        assert result.outcome in ("ttl_expired_answered", "invalid_address_dropped")
    assert rig.records() == {}


# --- UDP ---


@EVERYWHERE
def test_udp_within_the_window_stays(rig, dispatch, version):
    configure(rig, dispatch)
    key = move(rig, version, "udp")
    assert backend_of(rig, version, protocol="udp") == OLD
    ((flow, record),) = rig.choices(ANY_RECORDS)
    assert flow.protocol == 17
    assert record.backend_id == rig.backend_id(key, OLD)
    assert rig.records() == {ANY_RECORDS: 1}
    configure(rig, dispatch, history_window_any=0)
    # The window is over: what is recorded stays, what comes now is new.
    assert backend_of(rig, version, protocol="udp") == OLD
    assert backend_of(rig, version, protocol="udp", sport=20001) == NEW


@SHORT
def test_udp_after_the_window_begins_anew(rig, version):
    configure(rig, history_window_any=0)
    move(rig, version, "udp")
    assert backend_of(rig, version, protocol="udp") == NEW
    assert backend_of(rig, version, protocol="udp") == NEW
    assert rig.records() == {ANY_RECORDS: 1}


@SHORT
def test_silent_udp_flow_is_forgotten(rig, version):
    configure(rig, history_window_any=60)
    move(rig, version, "udp")
    assert backend_of(rig, version, protocol="udp") == OLD
    configure(rig, history_window_any=0)
    rig.age_choices(59)
    assert backend_of(rig, version, protocol="udp") == OLD
    rig.age_choices(60 + 10 / 8 + 1)
    assert backend_of(rig, version, protocol="udp") == NEW


@SHORT
def test_tcp_knows_no_window(rig, version):
    """A connection may be silent for hours."""
    configure(rig, history_window_any=0)
    move(rig, version)
    assert backend_of(rig, version, flags="A") == OLD


# --- algorithm random ---


@SHORT
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_random_uses_all_backends_and_sticks_to_one(rig, version, protocol):
    configure(rig)
    seen = set()
    for sport in range(20000, 20064):
        first = backend_of(rig, version, protocol=protocol, port=DSR_RANDOM, sport=sport)
        seen.add(first)
        for _ in range(2):
            again = backend_of(rig, version, protocol=protocol, port=DSR_RANDOM, sport=sport, flags="A")
            assert again == first
    assert seen == {11, 12}
    repeated = set()
    for _ in range(64):
        rig.forget_flows()
        repeated.add(backend_of(rig, version, protocol=protocol, port=DSR_RANDOM))
    assert repeated == {11, 12}


@SHORT
def test_random_begins_anew_with_the_next_connection(rig, version):
    configure(rig)
    seen = set()
    for _ in range(64):
        first = backend_of(rig, version, port=DSR_RANDOM)
        assert backend_of(rig, version, port=DSR_RANDOM, flags="A") == first
        assert backend_of(rig, version, port=DSR_RANDOM, flags="FA") == first
        seen.add(first)
    assert seen == {11, 12}


@SHORT
def test_random_without_a_record_goes_by_the_slot(rig, version):
    """As another node would choose, whose records are its own."""
    configure(rig)
    slot = oracle.slot_hash(SIDES[version].client, 20000, DSR_RANDOM, 6) % TABLE_SIZE
    assert backend_of(rig, version, port=DSR_RANDOM, flags="A") == 11 + slot % 2
