import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datapath.spec import scalars
from datapath.spec.errors import RefusedError


@pytest.mark.parametrize("raw", [True, "true", "True", " TRUE ", "yes", "on", "1", 1, "Y"])
def test_true_in_every_spelling(raw):
    assert scalars.parse_bool(raw) is True


@pytest.mark.parametrize("raw", [False, "false", "False", "no", "off", "0", 0])
def test_false_in_every_spelling(raw):
    assert scalars.parse_bool(raw) is False


@pytest.mark.parametrize("raw", ["", "maybe", 2, 1.0, None, [], {}])
def test_what_is_no_boolean(raw):
    with pytest.raises(RefusedError):
        scalars.parse_bool(raw)


@pytest.mark.parametrize(("raw", "value"), [(80, 80), ("80", 80), (" 65535 ", 65535), (1, 1)])
def test_ports(raw, value):
    assert scalars.parse_port(raw) == value


@pytest.mark.parametrize("raw", [0, 65536, 70000, -1, "0", "http", True, 80.0, None, "80 80", "٨٠", "9" * 5000])
def test_what_is_no_port(raw):
    with pytest.raises(RefusedError) as refused:
        scalars.parse_port(raw)
    assert refused.value.allowed == "1 to 65535"


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [("500ms", 0.5), ("2s", 2.0), ("1m", 60.0), ("1m30s", 90.0), ("1.5h", 5400.0), (3, 3.0), (0.25, 0.25), ("7", 7.0)],
)
def test_durations(raw, seconds):
    assert scalars.parse_duration(raw, 0, 1e5) == seconds


@pytest.mark.parametrize("raw", ["", "ms", "5 parsecs", "1s2", "-1s", True, None, [], math.nan, math.inf, 10**400])
def test_what_is_no_duration(raw):
    with pytest.raises(RefusedError):
        scalars.parse_duration(raw, 0, 1e5)


@example(8345807)
@given(st.integers(1, 10**7))
def test_a_duration_is_rendered_as_it_is_read(milliseconds):
    seconds = scalars.parse_duration(milliseconds / 1000, 0, 1e9)
    assert scalars.parse_duration(scalars.render_duration(seconds), 0, 1e9) == seconds


@pytest.mark.parametrize("raw", ["eth0,ens+", "eth0 ens+", "eth0, ens+", ["eth0", "ens+"], ["eth0", "ens+", "eth0"]])
def test_a_list_in_every_spelling(raw):
    assert scalars.parse_list(raw) == ("eth0", "ens+")


@pytest.mark.parametrize("raw", ["1024-29999", "1024,29999", "1024 29999", [1024, "29999"]])
def test_a_port_range_in_every_spelling(raw):
    assert scalars.parse_port_range(raw) == (1024, 29999)


@pytest.mark.parametrize("raw", ["29999-1024", "1024", "0-5", "1-2-3", [1], 5, None, {}])
def test_what_is_no_port_range(raw):
    with pytest.raises(RefusedError):
        scalars.parse_port_range(raw)


@pytest.mark.parametrize(
    ("text", "halves"),
    [
        ("10.0.0.1:80", ("10.0.0.1", "80")),
        ("[2001:db8::1]:80", ("2001:db8::1", "80")),
        ("10.0.0.1", ("10.0.0.1", "")),
        ("2001:db8::1", ("2001:db8::1", "")),
        ("[2001:db8::1]", ("2001:db8::1", "")),
    ],
)
def test_splitting_off_a_port(text, halves):
    assert scalars.split_port(text) == halves


@pytest.mark.parametrize(
    "raw",
    [
        "0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255", "fe80::1", "fe80::1%eth0",
        "::ffff:10.0.0.1", "10.0.0", "10.0.0.256", "example.org", "", None, 167772161, True,
    ],
)  # fmt: skip
def test_addresses_that_nothing_can_be_sent_to(raw):
    with pytest.raises(RefusedError):
        scalars.parse_address(raw)


@pytest.mark.parametrize("raw", [":9962", "127.0.0.1:9962", "[::1]:9962", ""])
def test_listen_addresses(raw):
    assert scalars.parse_listen_address(raw) == raw


@pytest.mark.parametrize("raw", ["9962", "localhost:9962", "127.0.0.1:0", "[::1]", 9962])
def test_what_is_no_listen_address(raw):
    with pytest.raises(RefusedError):
        scalars.parse_listen_address(raw)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (7, 7),
        (1.5, 2),
        ("0", 0),
        ("-5M", -5_000_000),
        ("+5k", 5000),
        ("50M", 50_000_000),
        ("1.5G", 1_500_000_000),
        (".5k", 500),
        ("1.", 1),
        ("1Ki", 1024),
        ("1Gi", 1 << 30),
        ("1Ei", 1 << 60),
        ("1E", 10**18),
        ("1e7", 10**7),
        ("1E3", 1000),
        ("1e-3", 1),
        ("100m", 1),
        ("2000m", 2),
        ("1n", 1),
        (" 10k ", 10_000),
    ],
)
def test_quantities(text, number):
    assert scalars.parse_quantity(text) == number


@pytest.mark.parametrize(
    "raw", ["", "M", "1 M", "1Mi5", "1K", "1e999", "0x10", "1_000", "\u0661M", None, True, [], {}, "1ei"]
)
def test_what_is_no_quantity(raw):
    with pytest.raises(RefusedError, match="not a quantity"):
        scalars.parse_quantity(raw)


@pytest.mark.parametrize(
    ("bits", "text"),
    [(0, "0 bit/s"), (999, "999 bit/s"), (50_000_000, "50 Mbit/s"), (1_500_000, "1.5 Mbit/s"), (3e15, "3000 Tbit/s")],
)
def test_bit_rates_in_words(bits, text):
    assert scalars.render_bit_rate(bits) == text


@pytest.mark.parametrize("raw", ["", ".", "..", "a/b", "a:b", "a b", "a" * 16, True])
def test_what_is_no_device(raw):
    with pytest.raises(RefusedError):
        scalars.parse_device(raw)
