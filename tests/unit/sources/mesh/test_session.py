import datetime

import pytest

from datapath.sources.mesh.session import heartbeat_time

WHEN = datetime.datetime(2026, 11, 30, 7, 0, 5, tzinfo=datetime.timezone.utc).timestamp()


@pytest.mark.parametrize(
    "raw", [b"2026-11-30T07:00:05Z", b"2026-11-30T08:00:05+01:00", b"2026-11-30T07:00:05.123456789Z"]
)
def test_heartbeats_as_go_writes_them(raw):
    assert heartbeat_time(raw) == WHEN


@pytest.mark.parametrize("raw", [None, b"", b"now", b"\xff", b"2026-13-01T00:00:00Z", b"9" * 5000])
def test_what_is_no_heartbeat(raw):
    assert heartbeat_time(raw) is None
