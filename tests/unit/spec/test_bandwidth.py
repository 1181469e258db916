"""Options of the bandwidth manager: what they may say together."""

import pytest

from datapath.spec.document import merge
from datapath.spec.errors import SpecErrors
from datapath.spec.options import BY_KEY
from datapath.state.model import DesiredState

MANAGER = {"enable-bandwidth-manager": True}
ROUTED = {"enable-host-legacy-routing": False}


def messages(options):
    with pytest.raises(SpecErrors) as refused:
        merge(DesiredState(), {"options": {"config": options}})
    assert all(error.path == "options" and error.allowed for error in refused.value.errors)
    return [error.message for error in refused.value.errors]


BBR = {"enable-bbr": True}
HOST_ONLY = {"enable-bbr-hostns-only": True}


@pytest.mark.parametrize(
    "options",
    [
        {},
        MANAGER,
        {**MANAGER, **ROUTED},
        {"enable-host-legacy-routing": True},
        {**MANAGER, **ROUTED, **BBR},
        {**MANAGER, **BBR, **HOST_ONLY},
        {**MANAGER, **ROUTED, **BBR, **HOST_ONLY},
    ],
)
def test_together(options):
    assert merge(DesiredState(), {"options": {"config": options}}).options == options


def test_without_the_manager_nobody_routes_but_the_stack():
    (message,) = messages(ROUTED)
    assert "programs of the bandwidth manager, which is switched off" in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({**BBR, **HOST_ONLY}, ["BBR needs qdisc fq, which the bandwidth manager sets up, and that is switched off"]),
        ({**MANAGER, **HOST_ONLY}, ["enable-bbr-hostns-only says whose sockets have BBR, and none has"]),
        ({**MANAGER, **BBR}, ["the host's stack takes packets of endpoints off their sockets' account"]),
        (BBR, ["BBR needs qdisc fq", "the host's stack takes packets"]),
        (HOST_ONLY, ["enable-bbr-hostns-only says whose"]),
    ],
)
def test_what_bbr_needs(options, expected):
    told = messages(options)
    assert [message.startswith(start) for message, start in zip(told, expected)] == [True] * len(told)
    assert len(told) == len(expected)


def test_bbr_has_kubespray_s_variable():
    assert BY_KEY["enable-bbr"].variable == "cilium_enable_bandwidth_manager_bbr"
