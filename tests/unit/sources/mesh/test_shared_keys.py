"""Keys that all owners have side by side: owners that want the same come to rest, and each has what only it wants."""

from hypothesis import given
from hypothesis import strategies as st

from datapath.etcd.operations import Change, Put
from datapath.sources.mesh.keyspace import Keyspace

KEYS = (b"shared/a", b"shared/b", b"shared/c")
MOST_WRITES = 60
"""Far more than owners need that do not fight."""


class Store:
    """Keys with their leases, and every change in order."""

    def __init__(self):
        self.keys, self.log = {}, []

    @property
    def revision(self):
        return len(self.log)

    def write(self, operations):
        for each in operations:
            put = isinstance(each, Put)
            change = Change(each.key, each.value if put else None, self.revision + 1, each.lease if put else 0)
            self.log.append(change)
            if put:
                self.keys[each.key] = change
            else:
                self.keys.pop(each.key, None)
        return self.revision


class Owner:
    """One node, which sees changes later than they happen."""

    def __init__(self, store, lease):
        self.store, self.lease, self.wanted = store, lease, {}
        self.keyspace = Keyspace()
        self.keyspace.shared = (b"shared/",)
        self.begin()

    def begin(self):
        self.keyspace.lease = self.lease
        self.keyspace.begin(self.store.keys.values(), [self.lease])
        self.seen = self.store.revision

    def want(self, key, present):
        value = b"of %d" % self.lease if present else None
        self.wanted[key] = present
        self.keyspace.want({key: value})

    def see(self, most):
        news = self.store.log[self.seen : self.seen + most]
        self.seen += len(news)
        self.keyspace.take(news)

    def write(self):
        operations = self.keyspace.operations()
        if operations:
            self.keyspace.written(operations, self.store.write(operations))
        self.keyspace.settle()
        return bool(operations)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("want"), st.integers(0, 1), st.sampled_from(KEYS), st.booleans()),
        st.tuples(st.just("see"), st.integers(0, 1), st.integers(1, 3)),
        st.tuples(st.just("write"), st.integers(0, 1)),
        st.tuples(st.just("begin"), st.integers(0, 1)),
    ),
    max_size=30,
)


@given(steps)
def test_owners_come_to_rest(steps):
    store = Store()
    owners = (Owner(store, 1), Owner(store, 2))
    for name, which, *arguments in steps:
        getattr(owners[which], name)(*arguments)
    for _ in range(MOST_WRITES):
        busy = False
        for owner in owners:
            owner.see(len(store.log))
            busy |= owner.write()
        if not busy and all(owner.seen == store.revision for owner in owners):
            break
    else:
        raise AssertionError("they fight")
    for key in KEYS:
        who = {owner.lease for owner in owners if owner.wanted.get(key)}
        found = store.keys.get(key)
        assert (found is None) == (not who), key
        if found is not None:
            assert found.lease in who
            assert found.value == b"of %d" % found.lease
