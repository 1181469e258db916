"""Transactions are as few as there may be, and none is too large."""

from hypothesis import given
from hypothesis import strategies as st

from datapath.etcd.operations import MOST_BYTES, MOST_OPERATIONS, Delete, Put, batches


def test_as_few_as_there_may_be():
    made = list(batches(Put(b"%d" % n, b"x") for n in range(300)))
    assert [len(each) for each in made] == [MOST_OPERATIONS, MOST_OPERATIONS, 300 - 2 * MOST_OPERATIONS]
    assert list(batches([])) == []


def test_large_values_are_few_in_one():
    half = b"x" * (MOST_BYTES // 2 - 10)
    made = list(batches([Put(b"a", half), Put(b"b", half), Put(b"c", half), Delete(b"d")]))
    assert [[each.key for each in batch] for batch in made] == [[b"a", b"b"], [b"c", b"d"]]


def test_a_value_that_is_too_large_is_alone():
    made = list(batches([Put(b"a", b"1"), Put(b"b", b"x" * 2 * MOST_BYTES), Put(b"c", b"1")]))
    assert [len(each) for each in made] == [1, 1, 1]


@given(
    st.lists(st.integers(0, MOST_BYTES // 3).map(lambda n: Put(b"k", bytes(n))) | st.just(Delete(b"k")), max_size=20)
)
def test_nothing_is_lost_and_order_stays(operations):
    assert [each for batch in batches(operations) for each in batch] == operations
