"""Which endpoint has which number."""

import struct
from types import SimpleNamespace

from datapath.agent import bandwidth
from datapath.compile.endpoints import NodeEndpoint
from datapath.compile.layouts import BANDWIDTH_ENDPOINTS, BANDWIDTH_RATES, ENDPOINT_HOST, RateKey
from datapath.state.model import Endpoint

FOUND = [
    NodeEndpoint("db", Endpoint("db", interface="ve-db"), SimpleNamespace(index=3)),
    NodeEndpoint("gone", Endpoint("gone", interface="ve-gone")),
    NodeEndpoint("host", Endpoint("host", host=True)),
    NodeEndpoint("web", Endpoint("web", interface="ve-web"), SimpleNamespace(index=4)),
]


def entries(*rated, devices=()):
    return {
        BANDWIDTH_RATES: {bytes(RateKey(number)): b"" for number in rated},
        BANDWIDTH_ENDPOINTS: {struct.pack("=I", index): struct.pack("=I", number) for index, number in devices},
    }


def test_numbers_of_endpoints_that_have_rates():
    assert bandwidth.numbers(FOUND, entries(4097, devices=[(3, 4097)])) == {"db": 4097}
    assert bandwidth.numbers(FOUND, entries(ENDPOINT_HOST)) == {"host": ENDPOINT_HOST}
    assert bandwidth.numbers(FOUND, {}) == {}
