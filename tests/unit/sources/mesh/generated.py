"""What hypothesis makes for values of stores."""

import ipaddress

from hypothesis import strategies as st

unicast = st.one_of(
    st.integers(0x0A000000, 0x0AFFFFFF).map(ipaddress.IPv4Address),
    st.integers(0, 2**64).map(lambda number: ipaddress.IPv6Address((0xFD << 120) + number)),
)
networks = st.one_of(
    st.builds(lambda number, bits: ipaddress.ip_network((number, bits), False), st.integers(0x0A000000, 0x0AFFFFFF),
              st.integers(8, 32)),
    st.builds(lambda number, bits: ipaddress.ip_network(((0xFD << 120) + number, bits), False),
              st.integers(0, 2**64), st.integers(8, 128)),
)  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
