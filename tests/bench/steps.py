"""What each step of the load balancer costs: the program that ends after it, less the one that ends before it."""

import struct
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from bench import programs
from bench.measure import Target
from bench.wrapper import Order

STEPS = (
    "parse Ethernet, IP, transport",
    "look up the service",
    "look up the flow",
    "check the flow's backend, or choose one",
    "allocate a source port, enter the reply",
    "enter the request",
    "look up the next hop (remembered)",
    "rewrite, checksums, MAC addresses",
    "count outcome, service, backend",
    "redirect",
)
"""In the order of `enum step` of programs/steps.bpf.c."""
ONLY_NEW_FLOWS = (4, 5)


@contextmanager
def loaded(node, fresh):
    """`Target`s, one for each step of a new or of a known flow; they use the node's maps."""
    data = programs.compiled(programs.SOURCES / "steps.bpf.c", "steps")
    with ExitStack() as stack:
        targets = []
        for number, name in enumerate(STEPS):
            if number in ONLY_NEW_FLOWS and not fresh:
                continue
            obj = stack.enter_context(programs.BpfObject(data, "steps"))
            programs.load_on(obj, node.maps, node.config, steps=struct.pack("=I", number))
            targets.append(Target(name, obj.program_fd("steps"), warms=node.program))
        yield targets


def check(bench, case, targets):
    """The last step has to make of a frame what the load balancer makes of it."""
    wrapper, made = bench.wrapper, []
    traffic = replace(case.traffic, flows=1, order=Order.SEQUENTIAL)
    for program in (bench.node.program, targets[-1].program):
        wrapper.choose(program)
        made.append(wrapper.run(traffic, 1)[:2])
    assert made[0] == made[1], f"programs/steps.bpf.c no longer does what the load balancer does: {made}"
