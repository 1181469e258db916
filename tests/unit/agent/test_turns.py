"""Changes do not wait for those who look, and who looks never sees a change by half."""

import threading

import pytest

from datapath.agent.turns import UNLOCKED, DisturbedError, Turns


@pytest.fixture
def turns():
    return Turns()


class World:
    """Two things that every change makes the same."""

    def __init__(self, turns):
        self.turns = turns
        self.left = self.right = 0

    def change(self):
        with self.turns.changing():
            self.left += 1
            self.right += 1


def in_a_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_a_change_does_not_wait_for_a_look(turns):
    world, noted, seen = World(turns), [], []

    def look():
        left = world.left
        if not seen:
            in_a_thread(world.change)
        seen.append((left, world.right))
        return left

    assert turns.look(look, noted.append) == 1
    # What was seen of two moments is neither returned nor taken in.
    assert seen == [(0, 1), (1, 1)]
    assert noted == [1]


def test_a_look_that_changes_came_into_again_and_again_makes_them_wait(turns):
    world, looks, waited = World(turns), [], threading.Event()

    def change():
        world.change()
        waited.set()

    def look():
        looks.append(world.left)
        if len(looks) <= UNLOCKED:
            in_a_thread(world.change)
        else:
            thread = threading.Thread(target=change)
            thread.start()
            assert not waited.wait(0.2)
        return world.left, world.right

    assert turns.look(look) == (UNLOCKED, UNLOCKED)
    assert waited.wait(10)


def test_who_looks_once_is_told_of_a_change(turns):
    world, noted = World(turns), []
    with pytest.raises(DisturbedError):
        turns.look_once(lambda: in_a_thread(world.change), noted.append)
    assert noted == []
    turns.look_once(lambda: world.left, noted.append)
    assert noted == [1]


def test_a_glance_may_see_several_moments(turns):
    world = World(turns)

    def look():
        left = world.left
        in_a_thread(world.change)
        return left, world.right

    assert turns.glance(look) == (0, 1)


both = pytest.mark.parametrize("how", ["look", "glance"])


@both
def test_what_fails_because_of_a_change_is_looked_at_again(turns, how):
    world = World(turns)

    def look():
        if world.left == 0:
            in_a_thread(world.change)
            raise KeyError("gone in between")
        return "found"

    assert getattr(turns, how)(look) == "found"


@both
def test_what_fails_by_itself_fails_at_once(turns, how):
    looks = []

    def look():
        looks.append(1)
        raise KeyError("missing")

    with pytest.raises(KeyError):
        getattr(turns, how)(look)
    assert len(looks) == 1


@both
def test_a_change_of_a_look_that_failed_is_waited_for(turns, how):
    """A look may meet a change that has begun, and fail before it ends."""
    entered, leave = threading.Event(), threading.Event()

    def change():
        with turns.changing():
            entered.set()
            leave.wait(10)

    looks = []

    def look():
        looks.append(1)
        if len(looks) == 1:
            thread = threading.Thread(target=change)
            thread.start()
            entered.wait(10)
            threading.Timer(0.1, leave.set).start()
            raise KeyError("half a change")
        return len(looks)

    assert getattr(turns, how)(look) == 2


def test_changes_may_be_nested(turns):
    with turns.changing(), turns.changing():
        assert turns.look(lambda: "mine") == "mine"
