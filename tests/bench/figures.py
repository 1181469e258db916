"""Figures that do not jitter, and their comparison with those that are committed (baseline.json).

Helper calls are counted on the way of one packet of each kind, and depend on nothing but the source. What the verifier
looks at depends on the compiler and on the kernel too, so it is compared where both are of the baseline's series.
"""

import json
import platform
import re
import struct
import subprocess
from pathlib import Path

from bench import programs
from datapath.kernel import libbpf

BASELINE = Path(__file__).parent / "baseline.json"
VERIFIER_TOLERANCE = 0.10
"""Share by which the verifier's work may grow."""
HELPERS = {
    1: "map_lookup_elem",
    2: "map_update_elem",
    3: "map_delete_elem",
    5: "ktime_get_ns",
    7: "get_prandom_u32",
    23: "redirect",
    25: "perf_event_output",
    44: "xdp_adjust_head",
    65: "xdp_adjust_tail",
    69: "fib_lookup",
    118: "jiffies64",
    188: "xdp_get_buff_len",
}
"""Those that programs/counted.h counts, by number."""


def toolchain():
    """Kernel and compiler, as far as the verifier's work depends on them: `linux 6.1, clang 14`."""
    kernel = ".".join(platform.release().split(".")[:2])
    version = subprocess.run(("clang", "--version"), check=True, capture_output=True, text=True).stdout
    clang = re.search(r"version (\d+)", version)
    return f"linux {kernel}, clang {clang.group(1) if clang else '?'}, {platform.machine()}"


def measured(node, wrapper, cases):
    """All figures; `cases` in an order in which each packet takes its way the first time that it comes."""
    unknown = programs.helper_ids() - HELPERS.keys()
    assert not unknown, f"the load balancer calls helpers that programs/counted.h does not count: {sorted(unknown)}"
    instructions, machine_code = programs.sizes(node.program)
    verifier = {
        f"{node.mode.name}, verified": programs.verified_instructions(node.program),
        f"{node.mode.name}, instructions": instructions,
        f"{node.mode.name}, machine_code_bytes": machine_code,
    }
    return {"toolchain": toolchain(), "verifier": verifier, "helpers": _helper_calls(node, wrapper, cases)}


def together(found):
    """The figures of several modes as one."""
    whole = {"toolchain": toolchain(), "verifier": {}, "helpers": {}}
    for each in found:
        whole["verifier"].update(each["verifier"])
        whole["helpers"].update(each["helpers"])
    return whole


def _helper_calls(node, wrapper, cases):
    counts = {}
    with programs.counted() as obj:
        programs.load_on(obj, node.maps, node.config)
        program = obj.program_fd("xdp_lb")
        memory = obj.map_fd(".data.calls")
        size = libbpf.map_info(memory).value_size

        def calls():
            numbers = struct.unpack(f"={size // 8}Q", libbpf.map_lookup(memory, bytes(4), size))
            return {name: numbers[number] for number, name in HELPERS.items()}

        for case in cases:
            # Making the case may have run another program.
            wrapper.choose(program)
            if case.opening is not None:
                wrapper.run(case.opening, 1)
            # The first packet behind a SYN changes the flow's state, the second is an ordinary one.
            if case.outcome != "request_new_flow":
                wrapper.run(case.traffic, 1)
            before = calls()
            wrapper.run(case.traffic, 1)
            after = calls()
            counts[case.name] = {name: n - before[name] for name, n in after.items() if n != before[name]}
    return counts


def write(figures):
    """Make these figures the baseline; that of other toolchains is kept."""
    old = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"verifier": {}}
    verifier = {**old["verifier"], figures["toolchain"]: figures["verifier"]}
    BASELINE.write_text(json.dumps({"verifier": verifier, "helpers": figures["helpers"]}, indent=1) + "\n")


def compare(figures, baseline):
    """(what is worse than the baseline, remarks); sentences."""
    worse, remarks = [], []
    for case, calls in figures["helpers"].items():
        before = baseline["helpers"].get(case)
        if before is None:
            worse.append(f"{case}: not in the baseline")
        elif sum(calls.values()) > sum(before.values()) or calls.get("fib_lookup", 0) > before.get("fib_lookup", 0):
            worse.append(f"{case}: helper calls {before} became {calls}")
        elif calls != before:
            remarks.append(f"{case}: helper calls {before} became {calls}")
    worse += [f"{case}: in the baseline, but not measured" for case in baseline["helpers"].keys() - figures["helpers"]]
    known = baseline["verifier"].get(figures["toolchain"])
    if known is None or None in figures["verifier"].values():
        remarks.append(f"the verifier's work is not compared: the baseline has none for {figures['toolchain']}")
        return worse, remarks
    worse += [f"verifier, {name}: not in the baseline" for name in figures["verifier"].keys() - known]
    for name, before in known.items():
        now = figures["verifier"].get(name, 0)
        if now > before * (1 + VERIFIER_TOLERANCE):
            worse.append(f"verifier, {name}: {before} became {now}, more than {VERIFIER_TOLERANCE:.0%} worse")
        elif now < before * (1 - VERIFIER_TOLERANCE):
            remarks.append(f"verifier, {name}: {before} became {now}; write a new baseline to keep it there")
    return worse, remarks
