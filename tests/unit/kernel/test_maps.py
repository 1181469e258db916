import pytest

from datapath.compile import layouts
from datapath.kernel import features, libbpf
from datapath.kernel.entries import PartialWriteError, Writer
from datapath.kernel.errors import BpfError
from datapath.kernel.maps import Maps
from datapath.kernel.objects import ObjectSource
from datapath.kernel.pins import Pins

SIZES = {layouts.SERVICES: 16, layouts.BACKENDS: 8, layouts.LUTS: 4, layouts.FLOWS_TCP: 1024}


def u32(number):
    return number.to_bytes(4, "little")


def service(number):
    return u32(number) * 5, u32(number) * 2


@pytest.fixture
def maps(pins, objects):
    return Maps(Pins(pins), ObjectSource(objects), Writer())


@pytest.fixture
def installed(maps):
    maps.prepare(SIZES, 251)
    maps.commit()
    return maps


def test_maps_have_the_sizes_asked_for_and_else_the_object_s(installed):
    assert installed.sizes() == {**SIZES, layouts.OUTCOMES: 4}
    assert installed.table_size() == 251


def test_nothing_is_in_service_before_commit(maps):
    maps.prepare(SIZES, 251)
    assert maps.names() == ()
    maps.discard()
    with pytest.raises(BpfError, match="services_v1 is not pinned"), maps.opened(layouts.SERVICES):
        pass


def test_what_fits_is_left_alone(installed):
    before = installed.ids()
    installed.prepare(SIZES, 251)
    assert installed.staged_ids() == {}
    installed.commit()
    assert installed.ids() == before


def test_another_size_is_staged_with_the_entries(installed):
    installed.put(layouts.SERVICES, [service(1), service(2)])
    installed.prepare({**SIZES, layouts.SERVICES: 32}, 251)
    assert set(installed.staged_ids().values()) == {layouts.SERVICES}
    installed.put(layouts.SERVICES, [service(3)])
    installed.discard()
    assert dict(installed.entries(layouts.SERVICES)) == dict([service(1), service(2)])
    assert installed.sizes()[layouts.SERVICES] == 16


def test_a_smaller_map_has_room_because_doomed_entries_are_not_copied(installed):
    installed.put(layouts.SERVICES, [service(number) for number in range(10)])
    doomed = {layouts.SERVICES: {service(number)[0] for number in range(8)}}
    installed.prepare({**SIZES, layouts.SERVICES: 2}, 251, doomed=doomed)
    installed.commit()
    assert dict(installed.entries(layouts.SERVICES)) == dict([service(8), service(9)])


def test_array_entries_beyond_the_new_size_are_left_behind(installed):
    installed.put(layouts.BACKENDS, [(u32(2), b"\2" * 20), (u32(7), b"\7" * 20)])
    installed.prepare({**SIZES, layouts.BACKENDS: 4}, 251)
    installed.commit()
    assert dict(installed.entries(layouts.BACKENDS)) == {u32(n): (b"\2" if n == 2 else b"\0") * 20 for n in range(4)}


def test_per_cpu_counters_survive_a_resize(installed):
    value = bytes(range(16)) * libbpf.possible_cpus()
    installed.put(layouts.OUTCOMES, [(u32(1), value)])
    installed.prepare({**SIZES, layouts.OUTCOMES: 8}, 251)
    installed.commit()
    assert installed.lookup(layouts.OUTCOMES, [u32(1)]) == {u32(1): value}


def test_flows_begun_while_the_new_map_was_filled_are_not_lost(installed):
    flows = [(u32(number), u32(number) * 2) for number in range(20)]
    installed.put(layouts.FLOWS_TCP, flows[:10])
    installed.prepare({**SIZES, layouts.FLOWS_TCP: 2048}, 251)
    with libbpf.closing(libbpf.pinned(installed._pins.maps / layouts.FLOWS_TCP)) as old:
        # The new program has seen flow 15 already when the old one's is copied: the new one's stays.
        installed.put(layouts.FLOWS_TCP, [(u32(15), b"new flow")])
        Writer().put(old, flows[10:])
    installed.catch_up()
    installed.commit()
    assert dict(installed.entries(layouts.FLOWS_TCP)) == {**dict(flows), u32(15): b"new flow"}
    assert installed.sizes()[layouts.FLOWS_TCP] == 2048


def test_tables_are_swapped_whole(installed):
    tables = {1: u32(5) * 251, 3: u32(6) * 251}
    installed.put_luts(sorted(tables.items()))
    assert installed.luts({1, 2, 3}) == tables
    assert installed.luts([]) == {}
    installed.put_luts([(1, u32(9) * 251)])
    installed.delete_luts([3, 2])
    assert installed.luts({1, 2, 3}) == {1: u32(9) * 251}


def test_tables_that_are_known_are_read_without_a_copy(installed):
    """Marked slots or not; one that is another is read as it is."""
    plain, marked = u32(5) * 251, u32(layouts.SLOT_MOVED | 7) + u32(7) * 250
    installed.put_luts([(1, plain), (2, marked), (3, plain)])
    expected = {1: bytes(bytearray(plain)), 2: u32(7) * 251, 3: u32(8) * 251}
    found = installed.luts([1, 2, 3], expected)
    assert found == {1: plain, 2: u32(7) * 251, 3: plain}
    assert found[1] is expected[1]
    assert found[2] is expected[2]


def test_many_tables_take_few_system_calls_on_the_outer_map(installed):
    installed.prepare({**SIZES, layouts.LUTS: 1000}, 251)
    installed.commit()
    before = installed.writer.writes
    installed.put_luts([(number, u32(number) * 251) for number in range(1000)])
    # One for each table's contents; swapped in by 64 threads at once, twice, or one by one after those were refused.
    one_by_one = 0 if features.has("map_in_map_batch") else 1000
    assert installed.writer.writes - before == 1000 + 64 + 61 + one_by_one
    assert installed.luts(range(1000)) == {number: u32(number) * 251 for number in range(1000)}


def test_another_table_size_takes_a_new_map_of_tables(installed):
    installed.put_luts([(1, u32(5) * 251)])
    installed.prepare(SIZES, 509)
    installed.put_luts([(1, u32(5) * 509)])
    assert set(installed.staged_ids().values()) == {layouts.LUTS}
    installed.commit()
    assert installed.luts({1}) == {1: u32(5) * 509}
    assert installed.table_size() == 509


def test_a_table_of_the_wrong_size_is_refused(installed):
    with pytest.raises(PartialWriteError) as caught:
        installed.put_luts([(1, u32(5) * 251), (2, u32(5) * 509)])
    assert caught.value.done == 1
    assert set(installed.luts({1, 2})) == {1}


def test_deleting_from_an_array_zeroes(installed):
    installed.put(layouts.BACKENDS, [(u32(2), b"\2" * 20)])
    installed.delete(layouts.BACKENDS, [u32(2)])
    assert installed.lookup(layouts.BACKENDS, [u32(2)]) == {u32(2): bytes(20)}


def test_pins_of_maps_that_the_object_no_longer_has_go(installed, objects):
    (installed._pins.maps / layouts.OUTCOMES).rename(installed._pins.maps / "outcomes_v0")
    installed.prepare(SIZES, 251)
    assert "outcomes_v0" in installed.names()
    installed.commit()
    assert installed.names() == tuple(sorted({**SIZES, layouts.OUTCOMES: 4}))
