from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datapath.compile.layouts import ADDRESSES, BACKENDS, LUTS, SERVICES
from datapath.plan import operations as op
from datapath.plan import plan
from datapath.state.kernel_state import KernelState, UserProgram
from datapath.state.model import Hook, Program
from unit.plan.model import Kernel
from unit.state.builders import compiled, loaded, service

NOTHING = KernelState()


def kinds(operations):
    return [type(each).__name__ for each in operations]


def web6(**fields):
    return service("web6", "[2001:db8::10]:80/TCP", backends=["[2001:db8:1::1]:80"], **fields)


# --- what there is to do ------------------------------------------------------------------------------------------


def test_nothing_is_to_be_done_where_nothing_changed():
    state = compiled(service(), web6()).state
    assert plan(state, loaded(state)).operations == ()
    assert plan(NOTHING, NOTHING).operations == ()


def test_from_nothing_the_load_balancer_is_attached_last():
    names = kinds(plan(compiled(service()).state, NOTHING).operations)
    assert names[0] == "PrepareMaps"
    assert names[-1] == "SwapLoadBalancer"
    assert set(names) == {"PrepareMaps", "SetSysctl", "AddNeighbour", "PutEntry", "PutLut", "SwapLoadBalancer"}


def test_one_more_backend_touches_its_service_only():
    first = compiled(service("a", "192.0.2.1:80"), service("b", "192.0.2.2:80"))
    second = compiled(service("a", "192.0.2.1:80"), service("b", "192.0.2.2:80", backends=4), have=loaded(first.state))
    operations = plan(second.state, loaded(first.state)).operations
    assert kinds(operations) == ["PutEntry", "PutLut", "PutEntry"]
    assert [each.map for each in operations if isinstance(each, op.PutEntry)] == [BACKENDS, SERVICES]


def test_a_new_seed_changes_tables_and_program_but_no_map():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_lb_maglev_hash_seed="AAAAAAAAAAAAAAAA")
    assert kinds(plan(second.state, loaded(first.state)).operations) == ["PutLut", "SwapLoadBalancer"]


def test_another_table_size_stages_the_tables():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_lb_maglev_table_size=509)
    operations = plan(second.state, loaded(first.state)).operations
    assert kinds(operations) == ["PrepareMaps", "PutLut", "SwapLoadBalancer"]
    assert operations[0].table_size == 509


def test_a_resized_map_of_tables_is_filled_again_because_tables_are_not_copied():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_lb_maglev_map_max=100000)
    assert second.state.luts == first.state.luts
    assert kinds(plan(second.state, loaded(first.state)).operations) == ["PrepareMaps", "PutLut", "SwapLoadBalancer"]


def test_resized_flow_maps_change_nothing_else():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), bpf_ct_global_tcp_max=2048)
    assert kinds(plan(second.state, loaded(first.state)).operations) == ["PrepareMaps", "SwapLoadBalancer"]


def test_another_load_balancer_is_a_change_of_its_map_alone():
    first = compiled(service(), datapath_lb_peers="10.0.0.2,10.0.0.9")
    second = compiled(service(), have=loaded(first.state), datapath_lb_peers="10.0.0.2,10.0.0.9,10.0.0.10")
    assert kinds(plan(second.state, loaded(first.state)).operations) == ["PutEntry", "PutEntry"]
    back = plan(first.state, loaded(second.state)).operations
    assert kinds(back) == ["PutEntry", "DeleteEntry"]


def test_the_first_other_load_balancer_is_there_before_the_program_that_looks_for_it():
    first = compiled(service())
    second = compiled(service(), have=loaded(first.state), datapath_lb_peers="10.0.0.2,10.0.0.9")
    assert kinds(plan(second.state, loaded(first.state)).operations) == ["PutEntry", "PutEntry", "SwapLoadBalancer"]
    back = plan(first.state, loaded(second.state)).operations
    assert kinds(back) == ["SwapLoadBalancer", "DeleteEntry", "DeleteEntry"]


def test_maps_without_program_are_prepared_again():
    """As a first apply leaves them that broke off before anything was attached."""
    state = compiled(service()).state
    names = kinds(plan(state, replace(state, load_balancer=None)).operations)
    assert names[0] == "PrepareMaps"
    assert names[-1] == "SwapLoadBalancer"


@pytest.mark.parametrize("change", ["device", "foreign"])
def test_the_program_is_put_back_where_it_should_be(change):
    state = compiled(service()).state
    balancer = state.load_balancer
    broken = {
        "device": replace(balancer, attachments={}),
        "foreign": replace(balancer, foreign={"eth0": "another program"}),
    }[change]
    operations = plan(state, replace(state, load_balancer=broken)).operations
    assert kinds(operations) == ["SwapLoadBalancer"]


def test_a_foreign_program_elsewhere_is_not_ours_to_replace():
    state = compiled(service()).state
    have = replace(state, load_balancer=replace(state.load_balancer, foreign={"eth1": "another program"}))
    assert plan(state, have).operations == ()


def test_removing_everything():
    state = compiled(service()).state
    names = kinds(plan(NOTHING, loaded(state)).operations)
    assert names == ["RemoveLoadBalancer", "RemoveNeighbour", "RemoveNeighbour"]


def test_sysctls_that_are_not_wanted_stay():
    have = KernelState(sysctls={"net.ipv4.conf.eth0.forwarding": "1"})
    assert plan(NOTHING, have).operations == ()


def test_router_advertisements_are_kept_before_forwarding_is_switched_on():
    names = [each.name for each in plan(compiled(web6()).state, NOTHING).operations if isinstance(each, op.SetSysctl)]
    assert names == ["net.ipv6.conf.eth0.accept_ra", "net.ipv6.conf.eth0.forwarding"]


# --- users' programs ----------------------------------------------------------------------------------------------


def user(name="count", tag="a" * 16, data="", **fields):
    return UserProgram(Program(name, "/opt/count.o", "f", **{"hook": Hook.TC, "device": "eth0", **fields}), tag, data)


def with_programs(*programs):
    return KernelState(programs={each.program.name: each for each in programs})


@pytest.mark.parametrize("origin", [{}, {"object_path": "", "source": "int f;"}])
def test_a_program_is_known_by_its_tag_and_not_by_what_it_comes_from(origin):
    have = with_programs(replace(user(), program=replace(user().program, object_path="")))
    want = with_programs(replace(user(), program=replace(user().program, **origin)))
    assert plan(want, have).operations == ()


@pytest.mark.parametrize("change", [{"tag": "b" * 16}, {"data": "c"}, {"device": "eth1"}, {"direction": "egress"}])
def test_a_program_that_differs_is_put(change):
    assert plan(with_programs(user(**change)), with_programs(user())).operations == (op.PutProgram(user(**change)),)


def test_programs_go_first_and_come_last():
    state = compiled(service()).state
    want = replace(state, programs={"new": user("new")})
    names = kinds(plan(want, with_programs(user("old"))).operations)
    assert names[0] == "RemoveProgram"
    assert names[-1] == "PutProgram"
    assert "SwapLoadBalancer" in names


def few(names, number, **options):
    """Services of three backends each, each group at addresses of its own."""
    services = [
        service(name, f"192.0.2.{number}:{port}", backends=[f"10.0.{number}.{each}:80" for each in (1, 2, 3)])
        for port, name in enumerate(names, 1)
    ]
    return compiled(*services, **options)


@pytest.mark.parametrize(
    ("backends", "tables", "replaced"),
    [(18, 12, False), (9, 12, True), (18, 3, True)],
    ids=["room", "backends", "tables"],
)
def test_maps_that_are_too_full_for_old_and_new_are_replaced_together(backends, tables, replaced):
    """Or else a table would lead to backends of another service between two writes."""
    sizes = {"bpf_lb_service_backend_map_max": backends, "bpf_lb_maglev_map_max": tables}
    first = loaded(few("abc", 1, **sizes).state)
    want = few("def", 2, have=first, **sizes).state
    operations = plan(want, first).operations
    assert ("PrepareMaps" in kinds(operations)) is replaced
    if replaced:
        assert operations[0].replaced == {BACKENDS, LUTS, SERVICES, ADDRESSES}
    kernel = Kernel(first)
    kernel.run(operations, want)
    assert plan(want, loaded(kernel.state())).operations == ()


def test_a_table_of_a_full_map_may_lead_to_another_backend_of_its_own_at_once():
    sizes = {"bpf_lb_service_backend_map_max": 2}
    first = loaded(compiled(service(backends=["10.0.1.1:80", "10.0.1.2:80"]), **sizes).state)
    want = compiled(service(backends=["10.0.1.1:80", "10.0.1.3:80"]), have=first, **sizes).state
    assert kinds(plan(want, first).operations) == ["PutEntry", "PutLut"]


# --- properties ---------------------------------------------------------------------------------------------------


@st.composite
def worlds(draw):
    """Arguments of `compiled`: a few services that share few VIPs and ids, in maps that are just large enough."""
    ports = draw(st.lists(st.integers(1, 9), unique=True, max_size=5))
    services = [
        service(
            name,
            [f"192.0.2.{draw(st.integers(1, 3))}:{port}/{draw(st.sampled_from(['TCP', 'UDP']))}"],
            backends=[
                {"address": f"10.0.1.{number}:80", "weight": draw(st.sampled_from([0, 1, 100, 100]))}
                for number in sorted(draw(st.sets(st.integers(1, 4), max_size=3)))
            ],
        )
        for name, port in zip(draw(st.permutations("abcdefghi")), ports)
    ]
    return services, {
        "bpf_lb_service_map_max": draw(st.integers(5, 7)),
        "bpf_lb_service_backend_map_max": draw(st.integers(15, 18)),
        "bpf_lb_maglev_map_max": draw(st.integers(5, 7)),
        "bpf_lb_maglev_table_size": draw(st.sampled_from([251, 509])),
        "devices": draw(st.sampled_from(["eth0", "eth+"])),
        "bpf_lb_mode": draw(st.sampled_from(["snat", "dsr", "hybrid"])),
        "bpf_lb_acceleration": draw(st.sampled_from(["native", "disabled"])),
        "datapath_dsr_backend": bool(services) and draw(st.booleans()),
    }


@settings(max_examples=200)
@given(st.lists(worlds(), min_size=2, max_size=3))
def test_a_plan_reaches_what_is_wanted_and_serves_every_packet_on_the_way(steps):
    kernel = Kernel(NOTHING)
    for services, options in steps:
        have = kernel.state()
        want = compiled(*services, have=loaded(have), **options).state
        stays = set(want.entries[SERVICES]) & set(have.entries.get(SERVICES, {}))
        kernel.run(plan(want, loaded(have)).operations, want, protected=stays)
        reached = kernel.state()
        assert reached.entries == want.entries
        assert reached.luts == want.luts
        assert reached.map_sizes == want.map_sizes
        assert reached.load_balancer == want.load_balancer
        assert reached.node == want.node
        assert plan(want, loaded(reached)).operations == ()


@settings(max_examples=50)
@given(worlds())
def test_the_work_grows_with_the_difference(world):
    services, options = world
    options["bpf_lb_service_map_max"] = options["bpf_lb_maglev_map_max"] = 10
    options["bpf_lb_service_backend_map_max"] = 30
    before = compiled(*services, **options).state
    extra = service("extra", "192.0.2.1:99/TCP", backends=2)
    after = compiled(*services, extra, have=loaded(before), **options).state
    # two backends, a table, a frontend, perhaps its VIP, and what the first service asks of the node
    node = {"SetSysctl", "AddNeighbour", "SwapLoadBalancer"}
    names = [name for name in kinds(plan(after, loaded(before)).operations) if name not in node]
    assert len(names) <= 5
    assert LUTS not in {each.map for each in plan(after, loaded(before)).operations if isinstance(each, op.PutEntry)}
