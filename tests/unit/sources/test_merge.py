import ipaddress

import pytest

from datapath.sources.merge import Known, merge
from datapath.spec import document
from datapath.state.merged import HealthKey
from datapath.state.model import BackendState, DesiredState

IP = ipaddress.ip_address


def judged(*backends, failed=(), all_failed="closed", check=True):
    """{last number of the address: (state, in the table)} of backends 10.0.0.N, each (N, weight, state)."""
    items = [{"address": f"10.0.0.{n}:80", "weight": weight, "state": state} for n, weight, state in backends]
    service = {"name": "web", "frontends": ["192.0.2.1:80"], "backends": items}
    if check:
        service["health_check"] = {"type": "tcp", "all_failed": all_failed}
    desired = document.merge(DesiredState(), {"services": {"items": [service]}})
    health = {HealthKey("web", IP(f"10.0.0.{n}"), 80): False for n in failed}
    (effective,) = merge(desired, Known(health)).services
    return {
        int(str(each.backend.address).rpartition(".")[2]): (each.state.name.lower(), each.in_table)
        for each in effective.backends
    }


ACTIVE, QUARANTINED = ("active", True), ("quarantined", False)


def test_active_backends_are_in_the_table():
    assert judged((1, 100, "active"), (2, 7, "active")) == {1: ACTIVE, 2: ACTIVE}


def test_weight_zero_is_maintenance():
    assert judged((1, 100, "active"), (2, 0, "active"), (3, 0, "terminating")) == {
        1: ACTIVE,
        2: ("maintenance", False),
        3: ("maintenance", False),
    }


@pytest.mark.parametrize("state", ["maintenance", "quarantined"])
def test_states_that_take_nothing_stay_out_even_alone(state):
    assert judged((1, 100, state), all_failed="open") == {1: (state, False)}


def test_terminating_ones_serve_only_where_nobody_is_active():
    assert judged((1, 100, "active"), (2, 100, "terminating")) == {1: ACTIVE, 2: ("terminating", False)}
    assert judged((2, 100, "terminating"), (3, 100, "maintenance")) == {
        2: ("terminating", True),
        3: ("maintenance", False),
    }


def test_a_failed_backend_is_quarantined():
    assert judged((1, 100, "active"), (2, 100, "active"), failed=[2]) == {1: ACTIVE, 2: QUARANTINED}


def test_results_of_a_service_without_check_do_not_count():
    assert judged((1, 100, "active"), failed=[1], check=False) == {1: ACTIVE}


def test_results_of_another_service_do_not_count():
    desired = document.merge(
        DesiredState(),
        {
            "services": {
                "items": [
                    {
                        "name": name,
                        "frontends": [f"192.0.2.1:{port}"],
                        "backends": ["10.0.0.1:80"],
                        "health_check": {"type": "tcp"},
                    }
                    for name, port in (("a", 1), ("b", 2))
                ]
            }
        },
    )
    merged = merge(desired, Known({HealthKey("a", IP("10.0.0.1"), 80): False}))
    assert [each.backends[0].state for each in merged.services] == [BackendState.QUARANTINED, BackendState.ACTIVE]


def test_terminating_ones_serve_where_the_active_ones_failed():
    assert judged((1, 100, "active"), (2, 100, "terminating"), failed=[1]) == {
        1: QUARANTINED,
        2: ("terminating", True),
    }


def test_all_failed_closed_is_nobody():
    assert judged((1, 100, "active"), (2, 100, "active"), failed=[1, 2]) == {1: QUARANTINED, 2: QUARANTINED}


def test_all_failed_open_is_everybody_who_is_active():
    assert judged((1, 100, "active"), (2, 100, "active"), (3, 0, "active"), failed=[1, 2], all_failed="open") == {
        1: ACTIVE,
        2: ACTIVE,
        3: ("maintenance", False),
    }


def test_all_failed_open_is_the_terminating_ones_where_nobody_was_active():
    assert judged((1, 100, "terminating"), failed=[1], all_failed="open") == {1: ("terminating", True)}


def test_a_service_without_backends_has_an_empty_table():
    assert judged(all_failed="open") == {}
