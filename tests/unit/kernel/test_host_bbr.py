"""BBR for the sockets of one network namespace, which stands for the host's.

node eth0 10.9.0.1 -- 10.9.0.2 eth0 peer
"""

import contextlib
import socket

import pytest

from datapath.compile.layouts import BbrConfig
from datapath.kernel import Kernel, cgroups, features, host_bbr
from datapath.kernel.errors import KernelError
from datapath.plan import plan
from datapath.plan.operations import PutHostBbr, RemoveHostBbr
from datapath.state.kernel_state import KernelState
from netns.topology import wait_for

ADDRESSES = {socket.AF_INET: ("10.9.0.1", "10.9.0.2"), socket.AF_INET6: ("fd09::1", "fd09::2")}

pytestmark = [
    pytest.mark.skipif(not features.has("tcp_bbr"), reason="this kernel has no BBR"),
    pytest.mark.skipif(not features.has("sock_ops_netns"), reason="this kernel has no sock_ops_netns"),
]


@pytest.fixture
def kernel(pins):
    kernel = Kernel(pins)
    yield kernel
    kernel.reset()


@pytest.fixture
def both(node, peer):
    """(node, peer), both with another default than BBR."""
    for namespace in (node, peer):
        namespace.run("sysctl -qw net.ipv4.tcp_congestion_control=reno")
    wait_for(lambda: "tentative" not in node.run("ip -6 address") + peer.run("ip -6 address"))
    return node, peer


def config(default="reno", cookie=None):
    made = BbrConfig(netns_cookie=host_bbr.netns_cookie() if cookie is None else cookie)
    made.congestion[: len(default)] = default.encode()
    return bytes(made)


def algorithm(one):
    return one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def connection(server, client, addresses, family, chosen=None):
    """Algorithms of (the side that connected, the side that was connected to)."""
    with contextlib.ExitStack() as stack:
        with server:
            listener = stack.enter_context(socket.create_server((addresses[0], 0), family=family))
        with client:
            connecting = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        if chosen is not None:
            connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, chosen.encode())
        connecting.settimeout(10)
        connecting.connect((addresses[0], listener.getsockname()[1]))
        accepted, _ = listener.accept()
        with accepted:
            return algorithm(connecting), algorithm(accepted)


def test_namespaces_have_cookies_of_their_own(node, peer):
    own = host_bbr.netns_cookie()
    with peer:
        other = host_bbr.netns_cookie()
    assert 0 != own != other != 0


@pytest.mark.parametrize("family", ADDRESSES)
def test_the_host_s_sockets_have_it_and_others_do_not(kernel, both, family):
    node, peer = both
    here, there = ADDRESSES[family]
    assert connection(node, peer, (here,), family) == ("reno", "reno")
    kernel.execute([PutHostBbr(config())])
    assert connection(node, peer, (here,), family) == ("reno", "bbr")
    assert connection(peer, node, (there,), family) == ("bbr", "reno")
    assert connection(peer, peer, (there,), family) == ("reno", "reno")
    kernel.execute([RemoveHostBbr()])
    assert connection(peer, node, (there,), family) == ("reno", "reno")


def test_who_chose_an_algorithm_keeps_it(kernel, both):
    node, peer = both
    kernel.execute([PutHostBbr(config(default="cubic"))])
    assert connection(peer, node, ("10.9.0.2",), socket.AF_INET, chosen="reno")[0] == "reno"
    kernel.execute([PutHostBbr(config(default="ren"))])
    assert connection(peer, node, ("10.9.0.2",), socket.AF_INET)[0] == "reno"
    kernel.execute([PutHostBbr(config())])
    assert connection(peer, node, ("10.9.0.2",), socket.AF_INET)[0] == "bbr"


def test_put_replaced_read_back_and_removed(kernel, node, pins):
    assert kernel.read().host_bbr is None
    for wanted in (config(), config(default="cubic"), config(cookie=7)):
        want = KernelState(host_bbr=wanted)
        (operation,) = plan(want, kernel.read()).operations
        kernel.execute([operation])
        assert kernel.read().host_bbr == wanted
        assert plan(want, kernel.read()).operations == ()
    assert plan(KernelState(), kernel.read()).operations == (RemoveHostBbr(),)
    kernel.reset()
    assert kernel.read().host_bbr is None
    assert not pins.exists()


def test_one_that_is_attached_nowhere_is_put_again(kernel, node, pins):
    kernel.execute([PutHostBbr(config())])
    link = host_bbr.libbpf.pinned(pins / "links" / "sock_bbr")
    with host_bbr.libbpf.closing(link):
        host_bbr.libbpf.link_detach(link)
    have = kernel.read()
    assert have.host_bbr == b""
    want = KernelState(host_bbr=config())
    kernel.execute(plan(want, have).operations)
    assert kernel.read().host_bbr == config()


def test_without_cgroup_2_the_operation_fails_in_words(kernel, node, monkeypatch):
    monkeypatch.setattr(cgroups, "roots", list)
    with pytest.raises(KernelError, match="no cgroup2 is mounted"):
        kernel.execute([PutHostBbr(config())])
    assert kernel.read().host_bbr is None


def test_a_mount_of_one_cgroup_is_no_root(tmp_path, monkeypatch):
    lines = (
        "31 23 0:27 /system.slice /mnt/slice rw shared:9 - cgroup2 cgroup2 rw",
        "32 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw",
        "33 32 0:27 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw",
    )
    monkeypatch.setattr(cgroups.Path, "read_text", lambda _: "\n".join(lines))
    assert [str(each) for each in cgroups.roots()] == ["/sys/fs/cgroup/unified"]
    assert [str(each) for each in cgroups.mounts()] == ["/mnt/slice", "/sys/fs/cgroup/unified"]
