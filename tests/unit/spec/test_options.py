import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapath.spec.errors import RefusedError
from datapath.spec.later import LATER
from datapath.spec.option import Kind
from datapath.spec.options import BY_KEY, REGISTRY, RULES, effective, find, unknown_option

OPTIONS = pytest.mark.parametrize("option", REGISTRY, ids=[option.key for option in REGISTRY])

CILIUM_DEFAULTS = {
    "bpf-lb-mode": "snat",
    "bpf-lb-mode-annotation": False,
    "bpf-lb-dsr-dispatch": "opt",
    "bpf-lb-rss-ipv4-src-cidr": "",
    "bpf-lb-rss-ipv6-src-cidr": "",
    "bpf-lb-algorithm": "random",
    "bpf-lb-maglev-table-size": 16381,
    "bpf-lb-maglev-hash-seed": "JLfvgnHc2kaSUFaI",
    "bpf-lb-map-max": 65536,
    "bpf-lb-service-map-max": 0,
    "bpf-lb-service-backend-map-max": 0,
    "bpf-lb-maglev-map-max": 0,
    "bpf-lb-enable-wildcard-entries": True,
    "service-no-backend-response": "reject",
    "devices": (),
    "direct-routing-device": "",
    "bpf-ct-global-tcp-max": 524288,
    "bpf-ct-global-any-max": 262144,
    "arping-refresh-period": 30.0,
    "enable-ipv4": True,
    "enable-ipv6": True,
}

KUBESPRAY_VARIABLES = {
    "bpf-lb-mode": "cilium_loadbalancer_mode",
    "debug": "cilium_debug",
    "enable-ipv4": "cilium_enable_ipv4",
    "enable-ipv6": "cilium_enable_ipv6",
}


def test_every_name_stands_for_one_option():
    for attribute in ("key", "param", "variable"):
        names = [getattr(option, attribute) for option in REGISTRY]
        assert len(names) == len(set(names))


def test_no_option_is_also_refused_as_a_later_one():
    names = {name for option in REGISTRY for name in (option.key, option.variable)}
    assert not names & set(LATER)


@pytest.mark.parametrize(("key", "default"), CILIUM_DEFAULTS.items())
def test_defaults_are_ciliums(key, default):
    assert BY_KEY[key].default == default


def test_the_only_default_that_differs_from_ciliums_says_why():
    option = BY_KEY["bpf-lb-acceleration"]
    assert option.default == "native"
    assert "disabled" in option.effect


@pytest.mark.parametrize(("key", "variable"), KUBESPRAY_VARIABLES.items())
def test_kubesprays_names_are_kept(key, variable):
    assert BY_KEY[key].variable == variable


@OPTIONS
def test_a_row_is_complete(option):
    assert re.fullmatch(r"[a-z][a-z0-9-]*", option.key)
    assert re.fullmatch(r"[a-z][a-z0-9_]*", option.param)
    assert option.variable.startswith(("cilium_", "datapath_"))
    assert option.summary.endswith(".")
    assert option.effect.endswith(".")
    assert option.allowed


@OPTIONS
def test_defaults_examples_and_choices_are_read_as_they_are_rendered(option):
    examples = [option.default, *option.choices] + ([] if option.example is None else [option.example])
    for value in examples:
        assert option.parse(option.render(value)) == value


@OPTIONS
def test_scalars_are_read_from_text_too(option):
    rendered = option.render(option.default)
    text = ",".join(rendered) if isinstance(rendered, list) else str(rendered)
    assert option.parse(text) == option.default


def test_effective_options_have_defaults_where_nothing_is_set():
    options = effective({"bpf-lb-algorithm": "maglev"})
    assert set(options) == set(BY_KEY)
    assert options["bpf-lb-algorithm"] == "maglev"
    assert options["bpf-lb-mode"] == "snat"


def test_rules_hold_for_the_defaults():
    assert [rule for rule in RULES if rule.broken(effective({}))] == []


@pytest.mark.parametrize(
    ("key", "raw", "message"),
    [
        (
            "bpf-lb-maglev-table-size",
            1000,
            "1000, supported values are: [251 509 1021 2039 4093 8191 16381 32749 65521 131071]",
        ),
        ("bpf-lb-maglev-table-size", "16382", "Invalid value for --bpf-lb-maglev-table-size: 16382"),
        ("bpf-lb-maglev-hash-seed", "AAAA", "decoded hash seed is 3 bytes (not 12 bytes)"),
        ("bpf-lb-maglev-hash-seed", "not base64!", 'cannot decode base64 Maglev hash seed "not base64!": '),
        ("bpf-lb-map-max", 0, "out of range"),
        ("bpf-lb-map-max", "-5", "out of range"),
        ("bpf-lb-map-max", 1e30, "not an integer"),
        ("bpf-lb-map-max", 1 << 25, "out of range"),
        ("bpf-ct-global-tcp-max", 1023, "out of range"),
        ("bpf-lb-mode", "nat", "unknown value 'nat'"),
        ("bpf-lb-acceleration", "off", "unknown value 'off'"),
        ("bpf-lb-dsr-dispatch", "vxlan", "unknown value 'vxlan'"),
        ("bpf-lb-rss-ipv4-src-cidr", "10.200.0.1/16", "10.200.0.1 is not the base address of its network"),
        ("bpf-lb-rss-ipv4-src-cidr", "10.200.0.0", "not an IPv4 network with its prefix length"),
        ("bpf-lb-rss-ipv4-src-cidr", "2001:db8::/64", "not an IPv4 network"),
        ("bpf-lb-rss-ipv4-src-cidr", "ten", "not a network"),
        ("bpf-lb-rss-ipv4-src-cidr", "224.0.0.0/8", "no addresses that packets could come from"),
        ("bpf-lb-rss-ipv6-src-cidr", "10.200.0.0/16", "not an IPv6 network"),
        ("bpf-lb-rss-ipv6-src-cidr", "2001:db8::1/64", "is not the base address"),
        ("devices", "eth0,a-name-that-is-too-long", "cannot be a device name"),
        ("devices", "e+th", "cannot be a device name"),
        ("direct-routing-device", "eth+", "cannot be a device name"),
        ("datapath-snat-port-range", "80-29999", "ports that belong to services"),
        ("datapath-snat-port-range", "2000-2100", "too small"),
        ("datapath-lb-peers", "10.0.0.1, lb2", "'lb2': not an IP address"),
        ("datapath-lb-peers", ["10.0.0.1/24"], "not an IP address"),
        ("datapath-lb-peers", ["10.0.0.1", "10.0.0.2", "10.0.0.1"], "10.0.0.1 is there twice"),
        ("datapath-lb-peers", "10.0.0.1,10.0.0.1", "10.0.0.1 is there twice"),
        ("datapath-lb-peers", ["fd00::1", "fd00:0::1"], "fd00::1 is there twice"),
        ("datapath-lb-peers", "127.0.0.1", "127.0.0.1 cannot be used"),
        ("datapath-lb-peers", "224.0.0.1", "224.0.0.1 cannot be used"),
        ("datapath-lb-peers", "fe80::1", "link-local"),
        ("datapath-lb-peers", 7, "not a list"),
        ("datapath-lb-peers", [["10.0.0.1"]], "not text"),
        ("prometheus-serve-addr", "9962", "not an address to listen on"),
        ("arping-refresh-period", "100ms", "out of range"),
    ],
)
def test_values_that_are_refused(key, raw, message):
    with pytest.raises(RefusedError) as refused:
        BY_KEY[key].parse(raw)
    assert message in refused.value.message
    assert refused.value.allowed


def test_the_nearest_table_size_is_told():
    with pytest.raises(RefusedError) as refused:
        BY_KEY["bpf-lb-maglev-table-size"].parse(16000)
    assert refused.value.nearest == "16381"


@OPTIONS
def test_every_name_of_an_option_finds_it(option):
    assert find(option.key) is find(option.param) is find(option.variable) is option


@given(st.sampled_from([each for each in REGISTRY if len(each.key) > 8]), st.data())
def test_a_letter_that_is_left_out_is_found_out(option, data):
    # not the digit, which is all that tells enable-ipv4 from enable-ipv6
    places = [at for at in range(1, len(option.key)) if option.key[at] not in "46"]
    at = data.draw(st.sampled_from(places))
    typo = option.key[:at] + option.key[at + 1 :]
    assert unknown_option(typo, "key").nearest == option.key


@pytest.mark.parametrize(
    ("name", "spelling", "nearest"),
    [
        ("bpf-lb-algorithm", "param", "algorithm"),
        ("cilium_loadbalancer_mode", "key", "bpf-lb-mode"),
        ("maglev_tablesize", "param", "maglev_table_size"),
        ("bpf_lb_algoritm", "key", "bpf-lb-algorithm"),
        ("something else entirely", "key", None),
        (7, "key", None),
    ],
)
def test_the_nearest_name_is_of_the_expected_kind(name, spelling, nearest):
    assert unknown_option(name, spelling).nearest == nearest


@pytest.mark.parametrize("name", ["kube-proxy-replacement", "bpf-lb-ipip-sock-mark", "enable-wireguard", "cilium_mtu"])
def test_options_of_later_versions_are_no_typos(name):
    error = unknown_option(name, "key")
    assert "not implemented" in error.message
    assert error.nearest is None


def test_a_typo_in_an_option_of_a_later_version_is_told():
    assert "kube-proxy-replacement" in unknown_option("kube-proxy-replacment", "key").message


def test_boolean_options_take_every_spelling():
    for option in REGISTRY:
        if option.kind is Kind.BOOL:
            assert option.parse("True") is option.parse("yes") is option.parse(True) is True
