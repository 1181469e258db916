"""Counters of services and backends: what is forwarded, both directions, in bytes of the frame as it came in."""

import pytest

from bpf.rig import EMPTY, LOST, PROTOCOLS, SIDES, WEB, reply, request
from datapath.compile.layouts import BACKEND_STATS, SERVICE_STATS


def difference(rig, before):
    """Map name -> key -> (packets, bytes) since `before`."""
    after = {name: rig.kernel.counters(name) for name in (SERVICE_STATS, BACKEND_STATS)}
    if before is None:
        return after
    changes = {}
    for name, counts in after.items():
        old = before[name]
        changes[name] = {
            key: (packets - old.get(key, (0, 0))[0], size - old.get(key, (0, 0))[1])
            for key, (packets, size) in counts.items()
            if (packets, size) != old.get(key, (0, 0))
        }
    return changes


@pytest.mark.parametrize(("version", "protocol"), [(4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")])
def test_requests_and_replies_count(rig, version, protocol):
    before = difference(rig, None)
    first, second = request(version, protocol), request(version, protocol, flags="A", payload=b"x" * 500)
    result = rig.run(first)
    rig.run(second)
    answer = reply(version, result, protocol, payload=b"y" * 999)
    assert rig.run(answer, "out0").outcome == "reply_forwarded"
    key = (version, WEB, PROTOCOLS[protocol])
    total = (3, len(first) + len(second) + len(answer))
    changes = difference(rig, before)
    assert changes[SERVICE_STATS] == {rig.lut_id(key): total}
    assert changes[BACKEND_STATS] == {rig.backend_ids[key, result.destination[0]]: total}


@pytest.mark.parametrize("version", [4, 6])
def test_reply_left_to_the_stack_counts(rig, version):
    result = rig.run(request(version, source=SIDES[version].lost_client))
    before = difference(rig, None)
    answer = reply(version, result)
    assert rig.run(answer, "out0").outcome == "reply_passed"
    assert list(difference(rig, before)[SERVICE_STATS].values()) == [(1, len(answer))]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    ("fields", "outcome"),
    [
        ({"port": EMPTY}, "no_backend_answered"),
        ({"port": LOST}, "no_neighbour_dropped"),
        ({"ttl": 1}, "ttl_expired_answered"),
    ],
)
def test_what_is_not_forwarded_does_not_count(rig, version, fields, outcome):
    before = difference(rig, None)
    assert rig.run(request(version, **fields)).outcome == outcome
    assert difference(rig, before) == {SERVICE_STATS: {}, BACKEND_STATS: {}}
