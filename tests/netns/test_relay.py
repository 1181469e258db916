"""Path-MTU discovery with SNAT, where the router's ICMP errors always go to the load balancer that has no flow.

                          .-- 10.1.0.2, fd01::2 lb1: the client's packets to the VIP
    client -- router -----+-- 10.2.0.2, fd02::2 lb2: the router's own packets to the VIP, its errors
    10.8.0.2, fd08::2     '-- 10.9.0.2, fd09::2 backend

The router is .1 of every network. What it sends to the client has to fit into 1280 bytes.
"""

import pytest

from datapath.compile import layouts
from datapath.compile.outcomes import OUTCOMES
from datapath.kernel import Kernel
from netns.balanced import BACKEND, VIPS, document, echo, reach, services_of, transfer
from netns.topology import NetNS, bpffs, kernel_at_least, veth

NARROW = 1280
NETWORKS = {"lb1": 1, "lb2": 2, "client": 8, "backend": 9}
PEERS = "10.1.0.2,10.2.0.2,fd01::2,fd02::2"
SYSCTLS = (
    "net.ipv4.ip_forward=1",
    "net.ipv6.conf.all.forwarding=1",
    # Its errors come back from a load balancer, on their way to the backend.
    "net.ipv4.conf.all.accept_local=1",
)

pytestmark = pytest.mark.skipif(not kernel_at_least(5, 13), reason="veth passes on redirected frames from 5.13 on")


@pytest.fixture
def nodes():
    """Name -> namespace."""
    made = {"router": NetNS(), **{name: NetNS() for name in NETWORKS}}
    router = made["router"]
    for setting in SYSCTLS:
        router.run(f"sysctl -qw {setting}")
    for name, net in NETWORKS.items():
        veth(router, name, made[name], "eth0")
        for namespace, device, host in ((router, name, 1), (made[name], "eth0", 2)):
            namespace.run(f"ip address add 10.{net}.0.{host}/24 dev {device}")
            namespace.run(f"ip address add fd0{net}::{host}/64 dev {device} nodad")
        made[name].run(f"ip route add default via 10.{net}.0.1")
        made[name].run(f"ip -6 route add default via fd0{net}::1")
    for network in ("10.8.0.0/24", "fd08::/64"):
        # Before the one that came with the address.
        router.run(f"ip route replace {network} dev client mtu lock {NARROW}" + (" metric 1" if ":" in network else ""))
    for version, via in ((4, "10.{}.0.2"), (6, "fd0{}::2")):
        router.run(f"ip -{version} route add {VIPS[version]} via {via.format(2)}")
        router.run(f"ip -{version} rule add iif client table 100")
        router.run(f"ip -{version} route add {VIPS[version]} via {via.format(1)} table 100")
    yield made
    for namespace in made.values():
        namespace.close()


@pytest.fixture
def kernels(nodes, tmp_path):
    """Name of a load balancer -> its kernel."""
    with bpffs(tmp_path / "bpf") as mounted:
        yield {name: Kernel(mounted / name) for name in ("lb1", "lb2")}


def outcomes(namespace, kernel):
    with namespace:
        counted = kernel.counters(layouts.OUTCOMES)
    return {OUTCOMES[index].name: packets for index, (packets, _) in counted.items() if packets}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("acceleration", ["native", "disabled"])
def test_backend_learns_the_mtu_of_the_path(nodes, kernels, version, acceleration):
    options = {"devices": "eth0", "bpf_lb_acceleration": acceleration, "datapath_lb_peers": PEERS}
    for name, kernel in kernels.items():
        with nodes[name]:
            reach(kernel, document(services_of(version), **options))
    with echo(nodes["backend"], BACKEND[version]):
        transfer(nodes["client"], VIPS[version], 80, bytes(range(256)) * 500)
    assert f"mtu {NARROW}" in nodes["backend"].run(f"ip -{version} route show cache")
    assert outcomes(nodes["lb2"], kernels["lb2"])["icmp_error_relayed"] > 0
    assert outcomes(nodes["lb1"], kernels["lb1"])["icmp_error_forwarded"] > 0
