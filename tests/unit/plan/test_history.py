"""Established flows to backends that stay do not move, whatever tables come and go."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from datapath.compile.layouts import SLOT_MOVED
from datapath.plan.history import moved, owners

SLOTS = 8
TABLES = st.lists(st.lists(st.integers(0, 4), min_size=SLOTS, max_size=SLOTS), min_size=1, max_size=6)


def packed(ids):
    return array("I", ids).tobytes()


class Datapath:
    """What the program does with a slot, written from the description of the maps."""

    def __init__(self):
        self.table = self.history = None
        self.records = {}

    def put(self, ids):
        before = self.table or b""
        self.table, history = moved(before, self.history, packed(ids))
        self.history = history if history is not None else self.history

    def slot(self, number):
        return array("I", self.table)[number]

    def packet(self, flow, number, alive, opens=False):
        """The backend of a packet; `alive` are the backends that exist."""
        entry = self.slot(number)
        current = entry & ~SLOT_MOVED
        if not entry & SLOT_MOVED:
            return current
        if flow in self.records and self.records[flow] in alive:
            return self.records[flow]
        previous = array("I", self.history)[number]
        chosen = current if opens or previous not in alive else previous
        if chosen:
            self.records[flow] = chosen
        return chosen


@given(TABLES)
def test_owners_takes_the_marks_off(tables):
    path = Datapath()
    for ids in tables:
        path.put(ids)
        assert owners(path.table) == packed(ids)


@given(TABLES)
def test_the_same_table_again_changes_nothing(tables):
    path = Datapath()
    for ids in tables:
        path.put(ids)
    assert moved(path.table, path.history, packed(tables[-1])) == (path.table, path.history)


@given(TABLES)
def test_a_slot_is_marked_from_its_first_change_on(tables):
    path = Datapath()
    for ids in tables:
        path.put(ids)
    for number in range(SLOTS):
        column = [ids[number] for ids in tables]
        # Nobody had a slot of 0: there is no flow that could stay there.
        changed = any(before and before != after for before, after in zip(column, column[1:]))
        assert bool(path.slot(number) & SLOT_MOVED) == changed


@given(TABLES, st.integers(0, SLOTS - 1))
def test_an_established_flow_stays_with_its_backend(tables, number):
    """It sends a packet between any two changes, and its backend never goes."""
    alive = {1, 2, 3, 4}
    path = Datapath()
    home = None
    for ids in tables:
        path.put(ids)
        if home is None:
            home = path.packet("flow", number, alive, opens=True) or None
        elif home:
            assert path.packet("flow", number, alive) == home


@given(TABLES, st.integers(0, SLOTS - 1))
def test_a_new_flow_takes_the_owner_and_keeps_it(tables, number):
    alive = {1, 2, 3, 4}
    path = Datapath()
    for index, ids in enumerate(tables):
        path.put(ids)
        home = path.packet(index, number, alive, opens=True)
        assert home == ids[number]
        # A slot that nobody has answers its client, who does not go on.
        assert not home or path.packet(index, number, alive) == home


def test_another_size_has_no_history():
    assert moved(packed([1, 2]), None, packed([1, 2, 3])) == (packed([1, 2, 3]), None)
    assert moved(b"", None, packed([1, 2, 3])) == (packed([1, 2, 3]), None)
