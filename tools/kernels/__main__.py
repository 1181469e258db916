"""`python3 -m tools.kernels [VERSION...]`: run the tests under these kernels, all by default; as root, from the top.

With `--write`, docs/kernels.md is written from what was measured; without, it has to be what was measured.
The last line counts, as pytest's does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.kernels import packages, stage, table
from tools.kernels.packages import Image
from tools.kernels.results import Results
from tools.kernels.system import tell
from tools.kernels.versions import KERNELS, Kernel

PAGE = Path("docs/kernels.md")
SECONDS = 2700
"""After these a guest is taken to hang."""
AT_ONCE = 3

TESTS = (
    # What the kernel has, and what the probe says of it.
    "tests/kernels",
    "tests/unit/kernel/test_features.py",
    # Every program under the combinations of options; the table's size is a constant to the verifier, one will do.
    "tests/bpf/test_loading.py::test_loads_under_every_combination[251]",
    "tests/bpf/test_loading.py::test_loads_under_every_combination_at_tc[251]",
    "tests/bpf/test_loading.py::test_loads_under_every_combination_node",
    "tests/bpf/test_loading.py::test_loads_bandwidth",
    "tests/bpf/test_loading.py::test_loads_for_all_kinds_of_surroundings",
    "tests/bpf/test_loading.py::test_loads_beside_other_load_balancers_at_tc",
    # Every hook is attached, replaced in place, detached: XDP natively and generically, TCX or clsact, cgroups.
    "tests/unit/kernel/test_load_balancer.py::test_attached_natively_and_read_back",
    "tests/unit/kernel/test_load_balancer.py::test_replaced_in_place",
    "tests/unit/kernel/test_load_balancer.py::test_what_the_verifier_rejects_leaves_the_old_program_and_carries_the_log",
    "tests/unit/kernel/test_load_balancer.py::test_mode_can_change_and_comes_back_when_that_fails",
    "tests/unit/kernel/test_load_balancer.py::test_no_native_xdp_is_said_in_words",
    "tests/unit/kernel/test_load_balancer.py::test_resize_keeps_entries_flows_and_counters",
    "tests/unit/kernel/test_load_balancer.py::test_remove",
    "tests/unit/kernel/test_load_balancer.py::TestAtTc::test_attached_and_read_back",
    "tests/unit/kernel/test_load_balancer.py::TestAtTc::test_from_xdp_and_back_with_the_same_maps",
    "tests/unit/kernel/test_load_balancer.py::TestAtTc::test_remove",
    "tests/unit/kernel/test_node.py::TestBothHooks::test_sees_both_directions_and_is_read_back",
    "tests/unit/kernel/test_node.py::TestBothHooks::test_replaced_in_place_with_what_it_remembers",
    "tests/unit/kernel/test_node.py::TestBothHooks::test_remove_leaves_nothing",
    "tests/unit/kernel/test_node.py::test_together_with_the_load_balancer",
    "tests/unit/kernel/test_bandwidth.py::TestBothHooks::test_routed_by_the_programs",
    "tests/unit/kernel/test_bandwidth.py::TestBothHooks::test_every_router_takes_a_hop",
    "tests/unit/kernel/test_bandwidth.py::test_what_the_programs_route_stays_on_its_socket_s_account",
    "tests/unit/kernel/test_bandwidth.py::test_a_departure_time_from_within_the_container_arrives",
    "tests/unit/kernel/test_host_bbr.py::test_the_host_s_sockets_have_it_and_others_do_not",
    "tests/unit/kernel/test_host_bbr.py::test_who_chose_an_algorithm_keeps_it",
    "tests/unit/kernel/test_host_bbr.py::test_put_replaced_read_back_and_removed",
    "tests/unit/kernel/test_programs.py::test_what_is_put_is_read_back_and_removed",
    "tests/unit/kernel/test_programs.py::test_tc_program_works_and_is_replaced",
    "tests/unit/kernel/test_programs.py::test_other_filters_and_their_qdisc_stay",
    "tests/unit/kernel/test_programs.py::test_cgroup_program_works_and_is_replaced",
    "tests/unit/kernel/test_maps.py::test_another_size_is_staged_with_the_entries",
    "tests/unit/kernel/test_maps.py::test_tables_are_swapped_whole",
    "tests/unit/kernel/test_maps.py::test_many_tables_take_few_system_calls_on_the_outer_map",
    "tests/netns/test_modes.py::test_every_mode_after_every_other",
    # Devices that not every kernel has.
    "tests/unit/kernel/test_devices.py::test_a_vlan_has_a_parent",
    "tests/unit/kernel/test_devices.py::test_a_bond_has_ports",
    "tests/unit/kernel/test_devices.py::test_frames_in_several_buffers",
    "tests/netns/test_jumbo.py::test_large_frames[native-4]",
    "tests/netns/test_jumbo.py::test_answer_about_a_large_frame[6]",
    "tests/netns/test_vlan.py::test_vlans_below_and_above[qinq-geneve-6]",
    # Packets: of every mode and dispatch, both families, at XDP and at tc.
    "tests/bpf/test_dsr.py::test_to_the_backend_of_its_slot",
    "tests/bpf/test_dsr.py::test_tunnel_between_families",
    "tests/bpf/test_dsr.py::test_mtu",
    "tests/bpf/test_dsr_choices.py::test_connection_that_began_before_stays",
    "tests/bpf/test_flows.py::test_both_directions_mirror_each_other",
    "tests/bpf/test_fragments.py::test_requests",
    "tests/bpf/test_fragments.py::test_direct_server_return",
    "tests/bpf/test_icmp_errors.py::test_about_a_reply",
    "tests/bpf/test_icmp_errors.py::test_about_a_reply_that_went_straight_to_the_client",
    "tests/bpf/test_lookups.py::test_a_service_that_goes_and_comes",
    "tests/bpf/test_lookups.py::test_without_redirect_where_every_driver_transmits",
    "tests/bpf/test_node.py",
    "tests/bpf/test_outcomes.py::test_outcome",
    "tests/bpf/test_relay.py::test_outer_header_with_options",
    "tests/bpf/test_relay.py::test_padding_behind_the_tunnel",
    "tests/bpf/test_tc_lb.py::test_packet_that_stands_for_many",
    "tests/bpf/test_trace.py::test_new_flow",
    "tests/bpf/test_vlan.py::test_request",
    "tests/bpf/test_vlan.py::test_answers_go_back_as_they_came",
    "tests/bpf/test_wire.py",
)
"""What kernels differ in, and a few cases of each packet test (tests/kernels/sample.py): a guest is slow."""


def command(kernel: Kernel) -> tuple[str, ...]:
    """What runs in the guest."""
    return (
        *("env", f"DATAPATH_TEST_KERNEL={kernel.version}", "HYPOTHESIS_STORAGE_DIRECTORY=/run/hypothesis"),
        *stage.in_guest("-p", "kernels.sample", "--durations=25", *TESTS),
    )


def test(image: Image, seconds: float) -> Results:
    """Boot a kernel and test under it."""
    return stage.run(image.kernel.version, image, command(image.kernel), seconds)


def prepare() -> None:
    """Do here what takes many times as long in a guest: compile the tests' BPF objects, and Python's modules."""
    stage.OBJECTS.mkdir(parents=True, exist_ok=True)
    subprocess.run(stage.pytest("-q", "tests/unit/kernel/test_maps.py"), check=True)
    stage.collect("-p", "kernels.sample", *TESTS)


def check_page(measured: Mapping[Kernel, Mapping[str, bool]], write: bool) -> bool:
    """Whether docs/kernels.md is what was measured; it is afterwards, with `write`."""
    page = table.render(measured)
    if write:
        PAGE.write_text(page)
    if PAGE.exists() and PAGE.read_text() == page:
        return True
    (stage.EVIDENCE / PAGE.name).write_text(page)
    tell(f"FAILED {PAGE} is not what was measured ({stage.EVIDENCE / PAGE.name}): python3 -m tools.kernels --write")
    return False


def test_all(chosen: Sequence[Kernel], write: bool, at_once: int, seconds: float) -> int:
    """Test under the kernels; returns the exit code."""
    images = packages.ensure(stage.BUILD.resolve(), chosen)
    prepare()
    with ThreadPoolExecutor(at_once) as pool:
        found = dict(zip(chosen, pool.map(lambda image: test(image, seconds), images)))
    passed = sum(one.passed for one in found.values())
    failed = sum(len(one.failures) for one in found.values())
    if set(chosen) == set(KERNELS):
        current = check_page({kernel: one.features for kernel, one in found.items()}, write)
        passed, failed = passed + current, failed + (not current)
    print(f"{passed} passed, {failed} failed", flush=True)
    return int(failed > 0)


def main() -> int:
    """Entry point; exit code 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.kernels", description=__doc__)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=", ".join(k.version for k in KERNELS))
    parser.add_argument("--write", action="store_true", help=f"write {PAGE}")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="guests that run at the same time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="after which a guest is taken to hang")
    arguments = parser.parse_args()
    unknown = set(arguments.versions) - {kernel.version for kernel in KERNELS}
    if unknown:
        parser.error(f"no such kernel: {', '.join(sorted(unknown))}")
    if os.geteuid() != 0:
        parser.error("must run as root: what the guest does as root it does with this user's view of the machine")
    chosen = [kernel for kernel in KERNELS if not arguments.versions or kernel.version in arguments.versions]
    return stage.main(lambda: test_all(chosen, arguments.write, arguments.at_once, arguments.seconds))


if __name__ == "__main__":
    sys.exit(main())
