"""Following next hops that move: whom to ask when, and what asking does to the kernel's neighbours."""

import ipaddress
import time

import pytest

from datapath.kernel import follow, neighbours
from datapath.kernel.follow import INTERVAL, LONGEST, RATE, TICK, Asker, Follower, Question
from datapath.kernel.neighbours import Known
from datapath.state.facts import NextHop
from datapath.state.kernel_state import Neighbour
from netns.topology import slowness, wait_for

MAC = "02:00:00:00:00:01"
MOVED = "02:00:00:00:aa:bb"
WITHIN = 1.0 - 0.25
"""The program may use an answer of the kernel's for a quarter of a second more."""


def hop(number):
    return NextHop("eth0", ipaddress.ip_address("10.9.0.0") + number)


class World:
    """Next hops that answer, or do not, in a time of its own."""

    def __init__(self, count):
        self.follower, self.now = Follower(), 100.0
        self.heard = {hop(number): self.now for number in range(count)}
        self.silent = set()
        self.log = []

    def run(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.now += TICK
            known = {each: Known(MAC, self.now - heard) for each, heard in self.heard.items()}
            for question in self.follower.due(known, self.now):
                self.log.append((self.now, question))
                if question.hop not in self.silent:
                    self.heard[question.hop] = self.now + 0.001
        return self

    def asked(self, which):
        return [(when, question) for when, question in self.log if question.hop == which]


def test_what_answers_is_asked_alone():
    world = World(2).run(10)
    assert {question.mac for _, question in world.log} == {MAC}


def test_what_was_heard_of_just_now_is_not_asked():
    follower = Follower()
    assert follower.due({hop(1): Known(MAC, INTERVAL / 2)}, 100.0) == []
    assert [question.hop for question in follower.due({hop(1): Known(MAC, INTERVAL)}, 100.2)] == [hop(1)]


def test_what_does_not_answer_where_it_was_is_asked_for_everywhere_at_the_next_tick():
    world = World(1).run(2)
    world.silent.add(hop(0))
    last = max(world.heard.values())
    world.run(3)
    first = next(when for when, question in world.log if question.mac is None)
    assert first - last <= 3 * TICK + 0.01
    times = [when for when, question in world.log if question.mac is None]
    assert [round(b - a, 1) for a, b in zip(times, times[1:])] == [0.4, 0.8]


def test_questions_to_the_dead_get_rare_and_leave_room_for_others():
    world = World(3)
    world.silent.add(hop(0))
    world.run(60)
    last = [when for when, _ in world.asked(hop(0))][-3:]
    assert [round(b - a) for a, b in zip(last, last[1:])] == [LONGEST, LONGEST]
    assert max(world.now - heard for each, heard in world.heard.items() if each not in world.silent) < 3 * TICK


@pytest.mark.parametrize("count", [1, 5, 100, 1000])
def test_never_more_questions_than_the_rate(count):
    world = World(count).run(60)
    assert len(world.log) <= RATE * 60 + 5


def test_a_hundred_next_hops_take_turns():
    world = World(100).run(60)
    asked = [len(world.asked(hop(number))) for number in range(100)]
    assert max(asked) - min(asked) <= 1
    assert sum(asked) == pytest.approx(RATE * 60, abs=10)


def test_a_hundred_dead_next_hops_do_not_hide_a_living_one():
    world = World(101)
    world.silent = {hop(number) for number in range(100)}
    world.run(60)
    assert world.now - world.heard[hop(100)] < 1.0


def test_what_is_gone_is_forgotten():
    follower = Follower()
    assert follower.due({hop(1): Known(MAC, 1.0)}, 100.0)[0].mac == MAC
    follower.due({}, 100.2)
    assert follower.due({hop(1): Known(MAC, 1.4)}, 100.4)[0].mac == MAC


def test_the_solicited_node_address():
    address = ipaddress.ip_address("2001:db8::1:2ab:cdef")
    assert str(follow.solicited_node(address)) == "ff02::1:ffab:cdef"


# --- with the kernel ---


class Loop:
    """What the daemon does, by hand."""

    def __init__(self, node, monkeypatch=None):
        self.node, self.follower = node, Follower()
        with node:
            self.asker = Asker()

    def until(self, done, seconds):
        """Seconds until `done(known)`."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            with self.node:
                known = neighbours.known()
                if done(known):
                    return time.monotonic() - started
                self.asker.ask(self.follower.due(known, time.monotonic()))
            time.sleep(TICK)
        raise AssertionError(f"not within {seconds} s: {known}")

    def settle(self, seconds=1.0):
        started = time.monotonic()
        return self.until(lambda _: time.monotonic() - started > seconds, 2 * seconds + 1)


TARGETS = {"4": ipaddress.ip_address("10.9.0.2"), "6": ipaddress.ip_address("fd09::2")}


@pytest.fixture(params=["4", "6"])
def target(request):
    return TARGETS[request.param]


@pytest.fixture
def loop(node, peer, target):
    """The next hop is known, and followed."""
    with node:
        neighbours.add([Neighbour("eth0", target)])
        wait_for(lambda: NextHop("eth0", target) in neighbours.known(), what="the neighbour's resolution")
    made = Loop(node)
    yield made
    made.asker.close()


def test_a_next_hop_that_moves_without_a_word_is_followed_within_a_second(peer, loop, target):
    loop.settle()
    peer.run(f"ip link set eth0 address {MOVED}")
    took = loop.until(lambda known: known[NextHop("eth0", target)].mac == MOVED, 10)
    assert took < WITHIN * slowness()


def test_asking_keeps_a_next_hop_confirmed(node, loop, target):
    loop.settle(2)
    with node:
        assert neighbours.known()[NextHop("eth0", target)].age < 3 * TICK * slowness()
    assert "REACHABLE" in node.run(f"ip neigh show {target}")


def test_a_next_hop_that_falls_silent_stays_usable_until_the_kernel_gives_it_up(node, peer, loop, target):
    """Asking writes nothing: packets go where they went."""
    loop.settle()
    before = node.run(f"ip neigh show {target}").split("lladdr")[1].split()[0]
    peer.run("ip link set eth0 arp off")
    peer.run("ip address flush dev eth0")
    loop.settle(2)
    assert before in node.run(f"ip neigh show {target}")


def test_what_cannot_be_asked_holds_up_nothing(node, loop, target):
    """A device that is gone, and one without an address to ask from."""
    node.run("ip link add br0 type bridge")
    node.run("ip link set br0 up")
    with node:
        wait_for(lambda: neighbours.known()[NextHop("eth0", target)].age > 1.0, what="silence")
        nobody = [
            Question(NextHop(device, each), None) for device in ("gone", "br0", "lo") for each in TARGETS.values()
        ]
        loop.asker.ask([*nobody, Question(NextHop("eth0", target), None)])
        wait_for(lambda: neighbours.known()[NextHop("eth0", target)].age < 0.5, what="an answer")


@pytest.mark.parametrize("managed", [True, False])
def test_a_next_hop_that_announces_its_move_is_followed_by_the_kernel(node, peer, target, managed, monkeypatch):
    """Gratuitous ARP and unsolicited neighbour advertisement; nothing of ours runs."""
    if managed and not neighbours.managed_supported():
        pytest.skip("this kernel keeps no neighbours resolved by itself")
    monkeypatch.setattr(neighbours, "managed_supported", lambda: managed)
    peer.run("sysctl -qw net.ipv4.conf.eth0.arp_notify=1 net.ipv6.conf.eth0.ndisc_notify=1")
    with node:
        neighbours.add([Neighbour("eth0", target)])
        wait_for(lambda: NextHop("eth0", target) in neighbours.known(), what="the neighbour's resolution")
        time.sleep(0.2)  # the kernel takes no two changes within net.ipv4.neigh.*.locktime
        peer.run(f"ip link set eth0 address {MOVED}")
        started = time.monotonic()
        wait_for(lambda: neighbours.macs().get(NextHop("eth0", target)) == MOVED, what="the move")
    assert time.monotonic() - started < WITHIN * slowness()
