"""Which keys are written, and which are not anybody's business."""

from hypothesis import given
from hypothesis import strategies as st

from datapath.etcd.operations import Change, Delete, Put
from datapath.sources.mesh.keyspace import Keyspace

OURS, OLD, THEIRS = 7, 6, 9


def entry(key, value, lease=OURS, revision=1):
    return Change(key, value, revision, lease, 1)


def keyspace(want, *have, last=()):
    made = Keyspace()
    made.last = dict.fromkeys(last)
    made.want(want)
    made.begin(have, {OURS, OLD})
    made.lease = OURS
    return made


def test_what_differs_is_written():
    have = [entry(b"same", b"1"), entry(b"other", b"1"), entry(b"stale", b"1"), entry(b"old", b"1", OLD)]
    have += [entry(b"theirs", b"1", THEIRS), entry(b"nobody's", b"1", 0), entry(b"taken", b"1", THEIRS)]
    want = {b"same": b"1", b"other": b"2", b"new": b"3", b"old": b"1", b"taken": b"1"}
    made = keyspace(want, *have)
    assert made.operations() == [
        Put(b"new", b"3", OURS),
        Put(b"old", b"1", OURS),
        Put(b"other", b"2", OURS),
        Delete(b"stale"),
        Put(b"taken", b"1", OURS),
    ]
    assert made.foreign == 2
    made.written(made.operations(), 5)
    assert made.operations() == []


def test_stale_keys_of_an_older_lease_are_removed():
    assert keyspace({}, entry(b"a", b"1", OLD)).operations() == [Delete(b"a")]


def test_the_last_keys_wait_for_all_others_and_stay_as_they_are():
    made = keyspace({b"synced": b"later", b"web": b"1"}, last=[b"synced"])
    assert made.operations() == [Put(b"web", b"1", OURS)]
    made.written(made.operations(), 2)
    assert made.operations() == [Put(b"synced", b"later", OURS)]
    again = keyspace({b"synced": b"later"}, entry(b"synced", b"before", OLD), last=[b"synced"])
    assert again.operations() == [Put(b"synced", b"before", OURS)]
    assert keyspace({b"synced": b"later"}, entry(b"synced", b"before"), last=[b"synced"]).operations() == []


def test_what_somebody_does_is_undone():
    made = keyspace({b"web": b"1"}, entry(b"web", b"1"))
    made.settle()
    assert made.take([Change(b"web", None, 5)])
    assert made.operations() == [Put(b"web", b"1", OURS)]
    made.written(made.operations(), 6)
    made.settle()
    assert made.take([entry(b"web", b"2", THEIRS, 7)])
    assert made.operations() == [Put(b"web", b"1", OURS)]
    assert not keyspace({}, entry(b"a", b"1", THEIRS)).operations()


def test_events_that_are_older_than_what_was_written_are_no_news():
    made = keyspace({b"web": b"2"}, entry(b"web", b"1"))
    made.written(made.operations(), 9)
    made.settle()
    assert not made.take([entry(b"web", b"1", OURS, 8), entry(b"web", b"2", OURS, 9)])
    assert made.operations() == []


def test_only_keys_that_something_happened_to_are_looked_at(monkeypatch):
    made = keyspace({b"%d" % n: b"1" for n in range(1000)})
    made.written(made.operations(), 2)
    made.settle()
    looked = []
    monkeypatch.setattr(Keyspace, "_operation", lambda self, key: looked.append(key))
    made.want({b"5": b"2"})
    made.operations()
    made.settle()
    made.take([Change(b"7", None, 9)])
    assert set(looked) == {b"5", b"7"}


keys = st.sampled_from([b"a", b"b", b"c", b"d"])
values = st.sampled_from([b"1", b"2"])
leases = st.sampled_from([0, OURS, OLD, THEIRS])


@given(
    st.dictionaries(keys, values),
    st.dictionaries(keys, st.tuples(values, leases)),
    st.lists(st.tuples(keys, st.none() | st.tuples(values, leases)), max_size=8),
    st.sets(keys),
)
def test_what_is_wanted_comes_to_be_and_what_is_theirs_stays(want, have, events, last):
    made = keyspace(want, *(entry(key, *each) for key, each in have.items()), last=last)
    store = dict(have)
    for revision, (key, event) in enumerate(events, start=2):
        made.take([Change(key, None, revision) if event is None else Change(key, event[0], revision, event[1])])
        store.pop(key, None) if event is None else store.update({key: event})
    theirs = {key: each for key, each in store.items() if key not in want and each[1] in (0, THEIRS)}
    for revision in (100, 101):
        for each in (done := made.operations()):
            store.pop(each.key, None) if isinstance(each, Delete) else store.update(
                {each.key: (each.value, each.lease)}
            )
        made.written(done, revision)
        made.settle()
    assert made.operations() == []
    assert {key: each for key, each in store.items() if key not in want} == theirs
    assert all(store[key][1] == OURS for key in want)
    assert all(store[key][0] == value for key, value in want.items() if key not in last)
