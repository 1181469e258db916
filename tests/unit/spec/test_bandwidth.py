"""Options of the bandwidth manager: what they may say together."""

import pytest

from datapath.spec.document import merge
from datapath.spec.errors import SpecErrors
from datapath.state.model import DesiredState

MANAGER = {"enable-bandwidth-manager": True}
ROUTED = {"enable-host-legacy-routing": False}


def messages(options):
    with pytest.raises(SpecErrors) as refused:
        merge(DesiredState(), {"options": {"config": options}})
    assert all(error.path == "options" and error.allowed for error in refused.value.errors)
    return [error.message for error in refused.value.errors]


@pytest.mark.parametrize("options", [{}, MANAGER, {**MANAGER, **ROUTED}, {"enable-host-legacy-routing": True}])
def test_together(options):
    assert merge(DesiredState(), {"options": {"config": options}}).options == options


def test_without_the_manager_nobody_routes_but_the_stack():
    (message,) = messages(ROUTED)
    assert "programs of the bandwidth manager, which is switched off" in message
