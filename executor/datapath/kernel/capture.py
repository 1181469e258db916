"""Capturing: an instance of the load balancer's program that copies frames takes its place for a while.

It runs on the same maps, so flows, tables and counters go on. Links are replaced in place: no packet goes unseen,
neither at the beginning nor at the end. What an executor that died left capturing is drift, which the next one heals.
"""

from __future__ import annotations

from datapath.kernel import libbpf
from datapath.kernel.attachments import Transaction, update_link
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.errors import RefusedError
from datapath.kernel.load_balancer import CONFIG, PROGRAM, config_of, load
from datapath.kernel.maps import Maps
from datapath.kernel.objects import LOAD_BALANCER, ObjectSource
from datapath.kernel.pins import Pins


def begin(pins: Pins, objects: ObjectSource, maps: Maps, wanted: bytes) -> set[int]:
    """Have every device's load balancer copy the frames that `wanted` (`layouts.Capture`) asks for.

    Returns:
        The devices' indices.

    Raises:
        RefusedError: the pinned program is of another version than the object.
        BpfError: the kernel refuses the instance; then nothing has changed.
    """
    config = _pinned_config(pins)
    with BpfObject(objects.read(), LOAD_BALANCER) as obj:
        if len(config) != len(obj.initial_value(CONFIG)):
            raise RefusedError("the program in service is of another version; the next apply replaces it")
        return _replace(pins, load(obj, maps, config, PROGRAM, wanted))


def end(pins: Pins) -> None:
    """Put the pinned program back wherever the load balancer is attached."""
    fd = libbpf.pinned(pins.load_balancer)
    if fd is not None:
        with libbpf.closing(fd):
            _replace(pins, fd)


def _pinned_config(pins: Pins) -> bytes:
    fd = libbpf.pinned(pins.load_balancer)
    if fd is None:
        raise RefusedError("no load balancer runs at XDP on this node; what it sees at tc, tcpdump sees too")
    with libbpf.closing(fd):
        return config_of(fd)


def _replace(pins: Pins, program: int) -> set[int]:
    devices = set()
    with Transaction() as transaction:
        for pin in pins.load_balancer_links():
            link = libbpf.pinned(pin)
            if link is not None:
                update_link(transaction, transaction.hold(link), program)
                devices.add(int(libbpf.link_info(link).ifindex))
    return devices
