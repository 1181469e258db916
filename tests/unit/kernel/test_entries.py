import errno

import pytest

from datapath.kernel import entries, libbpf
from datapath.kernel.abi import MapType
from datapath.kernel.entries import PartialWriteError, Writer, read_entries


def u32(number):
    return number.to_bytes(4, "little")


@pytest.fixture
def make():
    made = []

    def create(kind, size, value_size=8):
        made.append(libbpf.map_create(kind, "test", 4, value_size, max_entries=size))
        return made[-1]

    yield create
    for fd in made:
        libbpf.os.close(fd)


CONTENTS = [(u32(number), number.to_bytes(8, "little")) for number in range(10_000)]


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.ARRAY, MapType.LRU_HASH])
def test_what_was_written_is_read_by_few_system_calls(make, kind):
    fd, writer = make(kind, 16_384 if kind is MapType.LRU_HASH else 10_000), Writer()
    writer.put(fd, CONTENTS)
    assert dict(read_entries(fd)) == dict(CONTENTS)
    assert writer.writes == 3


@pytest.mark.parametrize("kind", [MapType.HASH, MapType.ARRAY, MapType.LRU_HASH])
def test_one_by_one_gives_the_same(make, kind, monkeypatch):
    fd, writer = make(kind, 16_384 if kind is MapType.LRU_HASH else 10_000), Writer()
    monkeypatch.setattr(Writer, "_put_batch", lambda *_: (0, errno.EINVAL))
    writer.put(fd, CONTENTS)
    assert writer.writes == len(CONTENTS)
    assert dict(entries._read_singly(fd, 4, 8, 16_384)) == dict(read_entries(fd)) == dict(CONTENTS)


def test_values_of_all_cpus(make):
    fd = make(MapType.PERCPU_ARRAY, 3, value_size=12)
    width = 16 * libbpf.possible_cpus()
    Writer().put(fd, [(u32(1), b"\1" * width)])
    read = dict(read_entries(fd))
    assert [len(value) for value in read.values()] == [width] * 3
    assert read[u32(1)][:12] == b"\1" * 12
    assert not any(read[u32(0)])


def test_empty_map(make):
    assert list(read_entries(make(MapType.HASH, 4))) == []


def test_a_crowded_bucket_is_read_with_larger_buffers(make):
    # One entry of room: a bucket with two entries refuses the first buffers.
    fd = make(MapType.HASH, 4096)
    Writer().put(fd, CONTENTS[:4096])
    assert dict(entries._read_batches(fd, 4, 8, 1)) == dict(CONTENTS[:4096])


@pytest.mark.parametrize("batched", [True, False])
def test_full_map_tells_how_far_it_got(make, batched, monkeypatch):
    if not batched:
        monkeypatch.setattr(Writer, "_put_batch", lambda *_: (0, errno.EINVAL))
    fd = make(MapType.HASH, 10)
    with pytest.raises(PartialWriteError) as caught:
        Writer().put(fd, CONTENTS[:15])
    assert (caught.value.errno, caught.value.done) == (errno.E2BIG, 10)
    assert dict(read_entries(fd)) == dict(CONTENTS[:10])


def test_deleting_passes_over_what_is_absent(make):
    fd, writer = make(MapType.HASH, 100), Writer()
    writer.put(fd, CONTENTS[:50])
    writer.delete(fd, [u32(number) for number in (0, 1, 77, 2, 88, 3)])
    assert {key for key, _ in read_entries(fd)} == {u32(number) for number in range(4, 50)}


def test_absent_only_keeps_what_is_there(make):
    fd, writer = make(MapType.HASH, 3), Writer()
    writer.put(fd, [(u32(1), b"original")])
    written = writer.put_absent(fd, [(u32(number), b"replaced") for number in (1, 2, 3, 4)])
    assert written == 2
    assert dict(read_entries(fd)) == {u32(1): b"original", u32(2): b"replaced", u32(3): b"replaced"}
