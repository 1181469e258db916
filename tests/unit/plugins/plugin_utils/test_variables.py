from __future__ import annotations

import pytest
from ansible_collections.ebpf.datapath.plugins.plugin_utils import variables

KNOWN = {"cilium_loadbalancer_mode", "datapath_services"}
PARAMETERS = {"mode": "cilium_loadbalancer_mode", "devices": "datapath_devices"}


def test_only_names_that_look_like_ours_and_are_not_are_unknown():
    names = [
        "ansible_host",
        "cilium_loadbalancer_mode",
        "datapath_servces",
        "cilium_version",
        "__datapath_options",
        "mydatapath_x",
    ]
    assert variables.unknown(names, KNOWN) == ["cilium_version", "datapath_servces"]
    assert variables.unknown(names, KNOWN, foreign=["cilium_version"]) == ["datapath_servces"]


def test_a_refusal_names_the_nearest():
    assert variables.refuse("datapath_servces", KNOWN, {}).endswith("(did you mean datapath_services?)")
    assert "did you mean" not in variables.refuse("datapath_zzzzzzzzzzzzzz", KNOWN, {})


def test_a_refusal_says_when_a_name_is_no_typo():
    assert variables.refuse(
        "cilium_enable_hubble", KNOWN, {"cilium_enable_hubble": "not implemented: Hubble"}
    ).endswith("Hubble")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("options.values.mode", "cilium_loadbalancer_mode"),
        ("options.values.devices[1]", "datapath_devices[1]"),
        ("options.values.unheard", "options.values.unheard"),
        ("options.values", "options.values"),
        ("options.config.bpf-lb-mode", "cilium_config_extra_vars.bpf-lb-mode"),
        ("options.config", "cilium_config_extra_vars"),
        ("options", "options"),
        ("services.items[0].name", "datapath_services[0].name"),
        ("services.items", "datapath_services"),
        ("services.manifests[2].spec.type", "datapath_service_manifests[2].spec.type"),
        ("services.purge", "services.purge"),
        ("endpoints.items[1].labels.a", "datapath_endpoints[1].labels.a"),
        ("programs.items[0]", "programs.items[0]"),
    ],
)
def test_paths_of_the_document_become_the_inventory_s_names(path, expected):
    assert variables.behind(path, PARAMETERS) == expected
