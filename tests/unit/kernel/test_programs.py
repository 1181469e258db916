import contextlib
import os
from dataclasses import replace
from pathlib import Path

import pytest

from datapath.kernel import cgroups, programs
from datapath.kernel.bpf_object import BpfObject
from datapath.kernel.errors import KernelError
from datapath.plan.operations import PrepareMaps, PutProgram, RemoveProgram, SwapLoadBalancer
from datapath.spec.errors import SpecErrors
from datapath.state.kernel_state import UserProgram
from datapath.state.model import Hook, Program
from lib.tc_hooks import attach_by
from netns.topology import compile_object, wait_for


@pytest.fixture
def cgroup():
    path = cgroups.mounts()[0] / f"datapath-kernel-test-{os.getpid()}"
    path.mkdir()
    yield path
    path.rmdir()


@pytest.fixture
def put(kernel):
    def do(program):
        wanted = kernel.inspect_program(program)
        kernel.execute([PutProgram(wanted)])
        return wanted

    return do


def same(wanted):
    """`wanted` as `read` shows it."""
    return {wanted.program.name: replace(wanted, program=replace(wanted.program, object_path=""))}


def pings(namespace):
    done = namespace.run("ping -c 1 -W 1 -n 10.9.0.2", check=False)
    return " 0% packet loss" in done


TARGETS = [
    ("pass_everything_with_a_long_name", Hook.XDP, {"device": "eth0", "mode": "native"}),
    ("pass_everything_with_a_long_name", Hook.XDP, {"device": "eth0", "mode": "generic"}),
    ("tc_pass", Hook.TC, {"device": "eth0", "direction": "ingress"}),
    ("tc_pass", Hook.TC, {"device": "eth0", "direction": "egress"}),
    ("drop_everything", Hook.NONE, {}),
]


@pytest.mark.usefixtures("hooks")
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_put_is_read_back_and_removed(kernel, node, user, put, target):
    function, hook, where = target
    wanted = put(user(function, hook, **where))
    assert dict(kernel.read().programs) == same(wanted)
    kernel.execute([RemoveProgram(wanted)])
    assert dict(kernel.read().programs) == {}
    assert "clsact" not in node.run("tc qdisc show dev eth0")
    assert "xdp" not in node.run("ip link show eth0")


@pytest.fixture(params=["ingress", "egress"])
def way(request, hooks):
    return hooks, request.param


def test_tc_program_works_and_is_replaced(kernel, node, user, put, way):
    hook, direction = way
    put(user("tc_drop", Hook.TC, device="eth0", direction=direction))
    assert not pings(node)
    wanted = put(user("tc_pass", Hook.TC, device="eth0", direction=direction))
    wait_for(lambda: pings(node), what="the ping")
    assert dict(kernel.read().programs) == same(wanted)
    if hook == "clsact":
        assert node.run(f"tc filter show dev eth0 {direction}").count("direct-action") == 1


def test_other_filters_and_their_qdisc_stay(kernel, node, user, put, monkeypatch):
    attach_by("clsact", monkeypatch)
    node.run("tc qdisc add dev eth0 clsact")
    put(user("tc_pass", name="pinned"))
    node.run(f"tc filter add dev eth0 ingress prio 5 bpf da pinned {kernel._pins.program('pinned')}")
    wanted = put(user("tc_pass", Hook.TC, device="eth0", direction="ingress"))
    kernel.execute([RemoveProgram(wanted)])
    assert "pref 5" in node.run("tc filter show dev eth0 ingress")


def test_cgroup_program_works_and_is_replaced(kernel, node, user, put, cgroup):
    wanted = put(user("cgroup_drop", Hook.CGROUP, cgroup=f"{cgroup}/"))
    assert wanted.program.cgroup == str(cgroup)
    assert dict(kernel.read().programs) == same(wanted)

    def pings_inside():
        with in_cgroup(cgroup):
            return pings(node)

    assert not pings_inside()
    assert pings(node)
    put(user("cgroup_pass", Hook.CGROUP, cgroup=str(cgroup)))
    wait_for(pings_inside, what="the ping")
    put(user("cgroup_drop", Hook.CGROUP, cgroup=str(cgroup)))
    kernel.execute([RemoveProgram(wanted)])
    wait_for(pings_inside, what="the ping")


@contextlib.contextmanager
def in_cgroup(path):
    before = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    home = Path(f"{cgroups.mounts()[0]}{before[3:]}")
    (path / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))


def test_another_target_takes_over_before_the_first_goes(kernel, node, user, put, hooks):
    put(user("tc_drop", Hook.TC, device="eth0", direction="ingress"))
    wanted = put(user("tc_pass", Hook.TC, device="eth0", direction="egress"))
    wait_for(lambda: pings(node), what="the ping")
    assert dict(kernel.read().programs) == same(wanted)
    wanted = put(user("pass_everything_with_a_long_name", Hook.XDP, device="eth0", mode="native"))
    assert dict(kernel.read().programs) == same(wanted)
    assert "clsact" not in node.run("tc qdisc show dev eth0")
    wanted = put(user("drop_everything", Hook.NONE))
    assert dict(kernel.read().programs) == same(wanted)
    assert "xdp" not in node.run("ip link show eth0")


def test_a_failed_move_leaves_the_first_target(kernel, node, user, put, hooks):
    wanted = put(user("tc_pass", Hook.TC, device="eth0", direction="ingress"))
    moved = user("pass_everything_with_a_long_name", Hook.XDP, device="lo", mode="native")
    with pytest.raises(KernelError, match="attaching to lo in native mode"):
        kernel.execute([PutProgram(UserProgram(moved, "", ""))])
    assert dict(kernel.read().programs) == same(wanted)


def test_rejected_by_the_verifier(kernel, node, user, put):
    wanted = put(user("pass_everything_with_a_long_name", Hook.XDP, device="eth0"))
    bad = user("out_of_bounds", Hook.XDP, device="eth0")
    with pytest.raises(KernelError) as caught:
        kernel.inspect_program(bad)
    assert "invalid access to packet" in caught.value.log
    assert caught.value.operation.program.program == bad
    with pytest.raises(KernelError) as caught:
        kernel.execute([PutProgram(UserProgram(bad, "", ""))])
    assert "invalid access to packet" in caught.value.log
    assert dict(kernel.read().programs) == same(wanted)


def test_inspecting_leaves_nothing(kernel, node, pins, objects):
    single = Program("single", str(objects / "single.o"), None, Hook.XDP, device="eth0")
    assert kernel.inspect_program(single).program.function == "only"
    assert not pins.exists()
    assert not Path("/sys/fs/bpf/datapath_kernel_test").exists()
    assert "xdp" not in node.run("ip link show eth0")


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (
            (None, Hook.XDP, {"device": "eth0"}),
            r"holds 8 programs \(pass_everything_with_a_long_name, drop_everything, ",
        ),
        (("nonsense", Hook.XDP, {"device": "eth0"}), "holds no program nonsense; it holds: pass_everything"),
        (("tc_pass", Hook.XDP, {"device": "eth0"}), "program tc_pass of section 'tc' cannot be attached to xdp"),
        (("tc_pass", Hook.CGROUP, {"cgroup": "/"}), "program tc_pass of section 'tc' cannot be attached to cgroup"),
        (("cgroup_any", Hook.CGROUP, {}), "section 'cgroup/skb' of cgroup_any names no direction"),
        (("cgroup_pass", Hook.CGROUP, {"cgroup": "/etc"}), "/etc is no cgroup v2 directory; cgroup2 is mounted at /"),
    ],
)
def test_refused_in_words(kernel, user, attempt, message):
    function, hook, where = attempt
    with pytest.raises(SpecErrors, match=message):
        kernel.inspect_program(user(function, hook, **where))


def test_a_function_that_is_not_there_is_refused_with_those_that_are(kernel, user):
    with pytest.raises(SpecErrors) as caught:
        kernel.inspect_program(user("tc_pas"))
    (error,) = caught.value.errors
    assert (error.document, error.path, error.value) == ("programs", "programs.one.program", "tc_pas")
    assert "tc_pass, " in error.allowed
    assert error.nearest == "tc_pass"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nonsense.o", "/nonsense.o cannot be read: No such file or directory"),
        ("/etc/passwd", "/etc/passwd is no eBPF object that libbpf can open"),
    ],
)
def test_an_object_that_is_none_is_refused(kernel, user, path, message):
    with pytest.raises(SpecErrors) as caught:
        kernel.inspect_program(replace(user("tc_pass"), object_path=path))
    (error,) = caught.value.errors
    assert (error.path, error.value) == ("programs.one.object", path)
    assert message in error.message


def test_xdp_beside_the_load_balancer_is_refused(kernel, node, user, config):
    kernel.execute([PrepareMaps({}, 251), SwapLoadBalancer(config(), {"eth0": "native"})])
    with pytest.raises(KernelError, match=r"eth0 carries XDP program xdp_lb .* managed here as xdp_eth0"):
        kernel.execute([PutProgram(UserProgram(user("drop_everything", Hook.XDP, device="eth0"), "", ""))])


def test_own_place_for_the_pin(kernel, node, user, put, pins):
    first, second = str(pins.parent / "mine" / "first"), str(pins.parent / "second")
    wanted = put(user("drop_everything", pin=first))
    assert dict(kernel.read().programs) == same(wanted)
    assert Path(first).exists()
    wanted = put(user("tc_pass", pin=second))
    assert dict(kernel.read().programs) == same(wanted)
    assert not Path(first).exists()
    with pytest.raises(KernelError, match="second is pinned already, and not as program other"):
        kernel.execute([PutProgram(UserProgram(user("tc_drop", name="other", pin=second), "", ""))])
    wanted = put(user("tc_pass"))
    assert dict(kernel.read().programs) == same(wanted)
    assert not Path(second).exists()


def test_read_only_data_tells_programs_apart(kernel, user, tmp_path):
    source = tmp_path / "other.bpf.c"
    text = (Path(__file__).parent / "objects" / "user.bpf.c").read_text()
    source.write_text(text.replace("setting = 7", "setting = 8"))
    one = user("pass_everything_with_a_long_name")
    other = replace(one, object_path=str(compile_object(source, tmp_path)))
    seven, eight = kernel.inspect_program(one), kernel.inspect_program(other)
    assert seven.tag == eight.tag
    assert seven.data != eight.data


MAP = """
struct {{
    __uint(type, {type});
    __uint(max_entries, {entries});
    __type(key, {key});
    __type(value, {value});
    {more}
}} counts SEC(".maps");
"""
ARRAY = {"type": "BPF_MAP_TYPE_ARRAY", "entries": 4, "key": "__u32", "value": "__u32", "more": ""}
HASH = {**ARRAY, "type": "BPF_MAP_TYPE_HASH"}
MAPS = (
    ARRAY,
    HASH,
    {**HASH, "entries": 5},
    {**HASH, "key": "__u64"},
    {**HASH, "value": "__u64"},
    {**HASH, "more": "__uint(map_flags, BPF_F_NO_PREALLOC);"},
    {**ARRAY, "type": "BPF_MAP_TYPE_PERF_EVENT_ARRAY", "entries": 0},
    {**ARRAY, "type": "BPF_MAP_TYPE_RINGBUF", "entries": 4096, "key": "", "value": ""},
)
OF_MAPS = """
struct inner {{
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, {entries});
    __type(key, __u32);
    __type(value, __u32);
}};
struct {{
    __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
    __uint(max_entries, 4);
    __type(key, __u32);
    __array(values, struct inner);
}} counts SEC(".maps");
"""
USES_MAP = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
{definition}
SEC("xdp") int counting(struct xdp_md *context)
{{
    /* Whatever type the map has. */
    return bpf_ktime_get_ns() && {use} ? XDP_PASS : XDP_DROP;
}}
char license_text[] SEC("license") = "GPL";
"""
USES = {
    "BPF_MAP_TYPE_PERF_EVENT_ARRAY": "!bpf_perf_event_output(context, &counts, BPF_F_CURRENT_CPU, &(__u64){0}, 8)",
    "BPF_MAP_TYPE_RINGBUF": "!bpf_ringbuf_output(&counts, &(__u64){0}, 8, 0)",
}
LOOKUP = "bpf_map_lookup_elem(&counts, &(__u64){0})"


@pytest.fixture
def counting(tmp_path):
    """Makes a program with that map."""

    def make(definition, use=LOOKUP):
        path = tmp_path / "counting.bpf.c"
        path.write_text(USES_MAP.format(definition=definition, use=use))
        return Program("one", str(compile_object(path, tmp_path)), None, Hook.XDP, "eth0")

    return make


def with_map(each):
    definition = MAP.format(**each)
    if not each["key"]:
        definition = "\n".join(line for line in definition.splitlines() if "__type(" not in line)
    return definition, USES.get(each["type"], LOOKUP)


def test_definitions_of_maps_tell_programs_apart(kernel, node, put, counting):
    seen = []
    for each in MAPS:
        wanted = put(counting(*with_map(each)))
        # Also where the kernel has the last word on a size.
        assert dict(kernel.read().programs) == same(wanted)
        again = put(counting(*with_map(each)))
        assert (again, dict(kernel.read().programs)) == (wanted, same(wanted))
        seen.append(wanted)
    assert len({wanted.data for wanted in seen}) == len(MAPS)
    assert kernel.inspect_program(counting("", "1")).data == ""
    assert seen[1].tag == seen[2].tag


def test_a_map_that_was_there_before_is_the_same(kernel, counting):
    """As one that is pinned by its name is, when its program is replaced."""
    program = counting(*with_map({**HASH, "more": "__uint(pinning, LIBBPF_PIN_BY_NAME);"}))
    with made(program) as first, made(program, {"counts": first.map_fd("counts")}) as second:
        found = {programs._data(each.program_fd("counting")) for each in (first, second)}
    assert found == {kernel.inspect_program(program).data}


@contextlib.contextmanager
def made(program, reused=()):
    with BpfObject(Path(program.object_path).read_bytes(), program.name) as loaded:
        loaded.forget_pins()
        for name in reused:
            loaded.reuse_map(name, reused[name])
        loaded.load()
        yield loaded


def test_a_map_of_maps_is_known_again(kernel, node, put, counting):
    wanted = put(counting(OF_MAPS.format(entries=4)))
    assert dict(kernel.read().programs) == same(wanted)


def test_drift_attachment_removed(kernel, node, user, put, hooks):
    wanted = put(user("tc_pass", Hook.TC, device="eth0", direction="ingress"))
    if hooks == "tcx":
        kernel._pins.program_link("one").unlink()
    else:
        node.run("tc filter del dev eth0 ingress")
    assert kernel.read().programs["one"].program.hook is Hook.NONE
    kernel.execute([PutProgram(wanted)])
    assert dict(kernel.read().programs) == same(wanted)


@pytest.mark.usefixtures("hooks")
def test_drift_pin_removed(kernel, node, user, put, pins):
    wanted = put(user("tc_pass", Hook.TC, device="eth0", direction="ingress"))
    (pins / "programs" / "one").unlink()
    assert kernel.read().programs["one"].tag == ""
    kernel.execute([PutProgram(wanted)])
    assert dict(kernel.read().programs) == same(wanted)
    (pins / "programs" / "one").unlink()
    kernel.reset()
    assert kernel.read().programs == {}
    assert "clsact" not in node.run("tc qdisc show dev eth0")


def test_drift_device_gone(kernel, node, peer, user, put):
    wanted = put(user("drop_everything", Hook.XDP, device="eth0"))
    node.run("ip link del eth0")
    assert kernel.read().programs["one"].program.hook is Hook.NONE
    node.run("ip link add eth0 type veth peer name other")
    kernel.execute([PutProgram(wanted)])
    assert dict(kernel.read().programs) == same(wanted)


def test_names_with_dots(kernel, node, user, put):
    wanted = put(user("drop_everything", name="my.program"))
    assert dict(kernel.read().programs) == same(wanted)
