import sys
import types

import pytest

from datapath.tracing import requirements
from datapath.tracing.requirements import MissingError

NAMES = ("skb:kfree_skb", "tcp:tcp_probe")


def test_without_bcc(monkeypatch):
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(MissingError, match=r"python3-bpfcc is not installed; role ebpf\.datapath\.tracing") as caught:
        requirements.bcc()
    assert caught.value.path == "python3-bpfcc"


def test_another_package_of_that_name(monkeypatch):
    other = types.ModuleType("bcc")
    other.__file__ = "/usr/lib/other/bcc.py"
    monkeypatch.setitem(sys.modules, "bcc", other)
    with pytest.raises(MissingError, match=r"/usr/lib/other/bcc\.py is another package"):
        requirements.bcc()


@pytest.fixture
def bcc(monkeypatch, tmp_path):
    module = types.ModuleType("bcc")
    module.BPF = object
    monkeypatch.setitem(sys.modules, "bcc", module)
    monkeypatch.setattr(requirements, "MODULES", tmp_path)
    monkeypatch.setattr(requirements, "EMBEDDED_HEADERS", tmp_path / "kheaders.tar.xz")
    return module


def test_without_headers(bcc):
    with pytest.raises(MissingError, match=r"/build; role ebpf\.datapath\.tracing") as caught:
        requirements.bcc()
    assert caught.value.path.startswith("linux-headers-")


def test_with_headers(bcc, tmp_path):
    import os

    (tmp_path / os.uname().release / "build").mkdir(parents=True)
    assert requirements.bcc() is bcc


def test_headers_that_a_link_to_nothing_promises(bcc, tmp_path):
    import os

    (tmp_path / os.uname().release).mkdir()
    (tmp_path / os.uname().release / "build").symlink_to("/nonexistent")
    with pytest.raises(MissingError):
        requirements.bcc()


def test_headers_in_the_kernel(bcc, tmp_path):
    (tmp_path / "kheaders.tar.xz").touch()
    assert requirements.bcc() is bcc


def test_without_tracefs(tmp_path):
    with pytest.raises(MissingError, match="mount -t tracefs") as caught:
        requirements.events(NAMES, [tmp_path / "tracing"])
    assert caught.value.path == "tracefs"


def test_tracepoint_that_the_kernel_lacks(tmp_path):
    (tmp_path / "events/skb/kfree_skb").mkdir(parents=True)
    with pytest.raises(MissingError, match="no such tracepoint") as caught:
        requirements.events(NAMES, [tmp_path])
    assert caught.value.path == "tcp:tcp_probe"


def test_second_place(tmp_path):
    for name in ("skb/kfree_skb", "tcp/tcp_probe"):
        (tmp_path / "events" / name).mkdir(parents=True)
    assert requirements.events(NAMES, [tmp_path / "nothing", tmp_path]) == tmp_path / "events"
