from contextlib import suppress
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datapath.sources.mesh import identities
from datapath.sources.mesh.identities import (
    dump_identity,
    join_labels,
    numbers_of,
    parse_identity,
    parse_identity_number,
    split_labels,
)
from datapath.sources.mesh.values import QuarantineError
from datapath.state.remote import Label, RemoteIdentity

# As Cilium writes it: sorted by key (reference, 4.1).
PUBLISHED = (
    b"k8s:app=web;k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=default;"
    b"k8s:io.cilium.k8s.policy.cluster=c1;k8s:io.cilium.k8s.policy.serviceaccount=default;"
    b"k8s:io.kubernetes.pod.namespace=default;"
)
CLUSTER = Label("k8s", "io.cilium.k8s.policy.cluster", "c1")


def read(raw):
    return parse_identity(raw, "c1", 65538)


def test_numbers_tell_whose_they_are():
    """The reference's ranges (4.2): 16 bits for a cluster, or 15 where there may be more of them."""
    assert (numbers_of(1, 255)[0], numbers_of(1, 255)[-1]) == (65536, 131071)
    assert (numbers_of(255, 255)[0], numbers_of(255, 255)[-1]) == (255 << 16, (256 << 16) - 1)
    assert (numbers_of(1, 511)[0], numbers_of(1, 511)[-1]) == (32768, 65535)
    assert numbers_of(511, 511)[-1] == (512 << 15) - 1


@given(st.sampled_from([255, 511]), st.data())
def test_no_number_is_of_two_clusters(most, data):
    one, other = data.draw(st.lists(st.integers(1, most), min_size=2, max_size=2, unique=True))
    number = data.draw(st.sampled_from(numbers_of(one, most)))
    assert number not in numbers_of(other, most)


def test_an_identity_as_cilium_writes_it():
    found = read(PUBLISHED)
    assert found == RemoteIdentity(65538, PUBLISHED.decode())
    labels = list(split_labels(found.labels))
    assert (labels[0], labels[2]) == (Label("k8s", "app", "web"), CLUSTER)
    assert join_labels(reversed(labels)) == found.labels


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "do not end with ;"),
        (b"k8s:app=web", "do not end with ;"),
        (b"k8s:app=web;", "cluster is not k8s:io.cilium.k8s.policy.cluster=c1: there is none"),
        (b"k8s:io.cilium.k8s.policy.cluster=c2;", "cluster=c1: k8s:io.cilium.k8s.policy.cluster=c2"),
        (b"any:io.cilium.k8s.policy.cluster=c1;", "cluster=c1: any:io.cilium.k8s.policy.cluster=c1"),
        (PUBLISHED + b"k8s:io.cilium.k8s.policy.cluster=c2;", "the label of its cluster is not"),
        (PUBLISHED + b";", "'' is not a label"),
        (PUBLISHED + b"app=web;", "'app=web' is not a label"),
        (PUBLISHED + b"k8s:app;", "'k8s:app' is not a label"),
        (PUBLISHED + b"k8s:=web;", "'k8s:=web' is not a label"),
        (PUBLISHED + b"k8s:a\n=web;", "is not a label"),
        (b"\xff;", "not ASCII"),
        (PUBLISHED + b"k8s:a=" + b"b" * identities.LARGEST_LABELS + b";", "bytes are more than 16384"),
    ],
)
def test_quarantine(raw, reason):
    with pytest.raises(QuarantineError) as caught:
        read(raw)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 400


def test_names():
    assert parse_identity_number("65536", numbers_of(1, 255)) == 65536


@pytest.mark.parametrize("rest", ["", "x", "-1", "065536", "65536 ", "65536/1", "1" * 11, "1", "65535", "131072", "٣"])
def test_numbers_that_are_not_the_clusters(rest):
    with pytest.raises(QuarantineError):
        parse_identity_number(rest, numbers_of(1, 255))


# --- properties ---

words = st.from_regex(r"[a-z0-9A-Z._/-]{1,20}", fullmatch=True)
labels = st.lists(st.builds(Label, st.sampled_from(["k8s", "container"]), words, words), max_size=5, unique=True)


@given(labels)
def test_what_is_written_is_read(each):
    identity = RemoteIdentity(65538, join_labels([*each, CLUSTER]))
    assert read(dump_identity(identity)) == identity
    assert set(split_labels(identity.labels)) == {*each, CLUSTER}


@example([Label("k8s", "a", "1"), Label("k8s", "a", "0")], Random(1))
@given(labels, st.randoms())
def test_the_same_labels_are_the_same_text(each, random):
    other = list(each)
    random.shuffle(other)
    assert join_labels(other) == join_labels(each)


@given(st.one_of(st.binary(max_size=200), st.text(alphabet="ab:=;k8s\n", max_size=30).map(str.encode)))
def test_any_bytes_are_read_or_quarantined(raw):
    with suppress(QuarantineError):
        read(raw)
