"""The desired-state document on disk."""

import os
import signal

import pytest

from datapath.sources.store import Store, UnreadableError, write_atomic

DOCUMENT = {"services": {"items": [{"name": "web"}], "purge": True}}


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "state" / "desired.json")


def test_nothing_was_saved(store):
    assert store.load() is None


def test_what_was_saved_is_loaded(store):
    store.save(DOCUMENT)
    assert store.load() == DOCUMENT
    store.save({"options": {}})
    assert store.load() == {"options": {}}


def test_the_document_is_for_root_only(store):
    store.save(DOCUMENT)
    assert store.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "document": []}',
        b'{"format": 2, "document": {}}',
        b"\xff\xfe",
    ],
)
def test_a_damaged_file_is_reported_on_every_load_and_kept(store, damaged):
    store.path.parent.mkdir()
    store.path.write_bytes(damaged)
    for _ in range(2):
        with pytest.raises(UnreadableError) as caught:
            store.load()
        assert caught.value.path == store.path
        assert caught.value.reason
    assert store.path.read_bytes() == damaged


def test_saving_over_a_damaged_file_keeps_it_aside(store):
    store.path.parent.mkdir()
    for number in (1, 2):
        store.path.write_text(f"damaged {number}")
        kept = store.save(DOCUMENT)
        assert kept is not None
        assert kept.read_text() == f"damaged {number}"
        assert store.load() == DOCUMENT
    assert len(list(store.path.parent.iterdir())) == 3


def test_saving_over_a_sound_file_keeps_nothing_aside(store):
    store.save(DOCUMENT)
    assert store.save(DOCUMENT) is None
    assert list(store.path.parent.iterdir()) == [store.path]


def test_remove_leaves_nothing(store):
    store.path.parent.mkdir()
    store.path.write_text("damaged")
    store.save(DOCUMENT)
    store.remove()
    assert list(store.path.parent.iterdir()) == []
    store.remove()


def test_a_failed_write_leaves_the_old_contents_and_no_litter(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \udc80")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part(tmp_path):
    """A writer that is killed at any moment leaves one of the two whole documents."""
    store = Store(tmp_path / "desired.json")
    documents = [{"services": {"items": [{"name": letter * 100_000}]}} for letter in "ab"]
    store.save(documents[0])
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                while True:
                    for document in documents:
                        store.save(document)
            finally:
                os._exit(1)
        for _ in range(20):
            assert store.load() in documents
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert store.load() in documents
