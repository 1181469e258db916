"""pcapng files, judged by tshark."""

import io
import subprocess

import pytest

from datapath.cli.pcapng import Writer

FRAME = bytes.fromhex("02000000000102000000000288b5") + b"payload"
SECOND = 1_000_000_000


def read(tmp_path, stream, *fields):
    path = tmp_path / "frames.pcapng"
    path.write_bytes(stream.getvalue())
    command = ["tshark", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    for field in fields:
        command += ["-e", field]
    said = subprocess.run(command, capture_output=True, text=True, check=True)
    return [tuple(line.split("|")) for line in said.stdout.splitlines()]


def test_what_each_packet_carries(tmp_path):
    stream = io.BytesIO()
    writer = Writer(stream, ["eth0", "gone"], "datapath")
    writer.packet("eth0", 1_700_000_000 * SECOND + 5, FRAME, len(FRAME), outbound=False, comment="before")
    writer.packet("gone", 1_700_000_001 * SECOND, FRAME, len(FRAME), outbound=True, comment="after: x, drop")
    fields = ("frame.interface_name", "frame.comment", "frame.time_epoch", "frame.packet_flags_direction")
    first, second = read(tmp_path, stream, *fields)
    assert first[:3] == ("eth0", "before", "1700000000.000000005")
    assert second[:3] == ("gone", "after: x, drop", "1700000001.000000000")
    assert int(first[3], 0) == 1
    assert int(second[3], 0) == 2


@pytest.mark.parametrize("kept", range(14, 19))
def test_frames_that_were_cut_and_are_padded(tmp_path, kept):
    stream = io.BytesIO()
    writer = Writer(stream, ["eth0"], "datapath")
    for _ in range(2):
        writer.packet("eth0", SECOND, FRAME[:kept], 1500, outbound=False, comment="x")
    assert read(tmp_path, stream, "frame.cap_len", "frame.len") == [(str(kept), "1500")] * 2
