"""Other ways of doing what is dear (programs/variants.bpf.c), each less the parser in front of it."""

import ipaddress
from contextlib import contextmanager
from dataclasses import replace

from bench import cases, frames, programs
from bench.measure import Target
from bench.node import backend
from bench.wrapper import Order, Traffic
from datapath.compile.layouts import pack_address

NEXT_HOP = {
    "fib": "bpf_fib_lookup, as for the first packet of every 250 ms",
    "fib_direct": "bpf_fib_lookup without policy rules",
    "fib_no_neighbour": "bpf_fib_lookup without policy rules and neighbour",
    "remembered": "an array's entry with MAC addresses and device instead",
}
ENTER = {
    "enter_common": "enter a flow into a full LRU table",
    "enter_own": "the same with a list for each CPU (BPF_F_NO_COMMON_LRU)",
}
FIND = {
    "find_common": "look up a flow in an LRU table",
    "find_set": "in a set-associative table, without its lock",
    "find_set_locked": "in a set-associative table, with its lock",
}
OPEN = {
    "open_common": "look up and enter both directions of a flow, in a full LRU table",
    "open_set": "the same in a full set-associative table",
}
NOTHING = "nothing"


@contextmanager
def loaded():
    """Name of the program -> `Target`."""
    with programs.own("variants") as obj:
        chosen = [pack_address(ipaddress.ip_address(backend(version, 150))) for version in (4, 6)]
        obj.set_initial_value(".rodata.target", b"".join(chosen))
        obj.load()
        yield {name: Target(name, obj.program_fd(name)) for name in (NOTHING, *NEXT_HOP, *ENTER, *FIND, *OPEN)}


def measured(bench, device):
    """A row for each."""
    with loaded() as targets:
        for version in (4, 6):
            one = Traffic(frames.request(version, "tcp"), device)
            # The floors know IPv4 only, but `tx` does not look.
            case = cases.Case(f"IPv{version}, one flow", one, one, "")
            yield from _compare(bench, case, targets, NEXT_HOP)
        yield from _found(bench, device, targets)
        fresh = Traffic(frames.request(4, "tcp", offset=2), device, order=Order.FRESH)
        case = cases.Case("IPv4, always a new flow", fresh, fresh, "")
        for names in (ENTER, OPEN):
            for name in names:
                bench.wrapper.choose(targets[name].program)
                # Tables of sets have more places than entries.
                bench.wrapper.run(fresh, 2 * bench.node.flow_entries)
            yield from _compare(bench, case, targets, names)


def _found(bench, device, targets):
    """Lookups of one flow, and of many that are there with their replies."""
    one = Traffic(frames.request(4, "tcp"), device)
    many = replace(one, flows=cases.MANY)
    for name in OPEN:
        bench.wrapper.choose(targets[name].program)
        bench.wrapper.run(many, many.flows)
    for text, traffic in (("one flow", one), ("128k flows at random", replace(many, order=Order.MIXED))):
        yield from _compare(bench, cases.Case(f"IPv4, {text}", traffic, traffic, ""), targets, FIND)


def _compare(bench, case, targets, names):
    # Flags of the lookup that this kernel does not know end in an error.
    known = [name for name in names if _works(bench, case, targets[name])]
    first, *others = bench.measure(case, [targets[NOTHING], *(targets[name] for name in known)])
    for name, result in zip(known, others):
        yield {
            "variant": names[name],
            "case": case.name,
            "adds_ns": round(result.minimum - first.minimum, 1),
            "adds_median_ns": round(result.median - first.median, 1),
        }


def _works(bench, case, target):
    bench.wrapper.choose(target.program)
    verdict, _, _ = bench.wrapper.run(case.traffic, 1)
    return verdict != 0
