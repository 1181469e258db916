"""Random and mutated frames through every mode of the program (FUZZ_SEED, FUZZ_PACKETS: others, more)."""

import os

import pytest

from fuzz import campaign, invariants
from fuzz.campaign import MODES, PACKETS, SEED, Campaign, regressions
from fuzz.invariants import DROP


@pytest.mark.parametrize("mode", MODES)
def test_invariants_hold(rig, mode):
    packets = int(os.environ.get("FUZZ_PACKETS", PACKETS)) // len(MODES)
    run = Campaign(rig, mode, int(os.environ.get("FUZZ_SEED", SEED)))
    run.run(packets, regressions(mode))
    assert sum(run.totals.values()) == packets + len(regressions(mode))
    # Or the frames no longer get anywhere.
    wanted = {"request_forwarded", "request_new_flow", "echo_answered", "no_backend_answered", "icmp_error_forwarded"}
    if mode == "peers":
        wanted.add("icmp_error_relayed")
    assert wanted <= run.totals.keys() or packets < 20_000
    print(f"\n{mode}: {packets} frames in {run.seconds:.1f} s, {len(run.totals)} outcomes")


def test_a_broken_invariant_is_kept_and_told(rig, monkeypatch, tmp_path):
    """The same frame is found again by its seed and by its file."""
    monkeypatch.setattr(campaign, "EVIDENCE", tmp_path)
    monkeypatch.setattr(invariants, "MOST_ADDED", 10)
    told = []
    for _ in range(2):
        with pytest.raises(campaign.BrokenInvariantError) as raised:
            Campaign(rig, "geneve", 7).run(5_000)
        told.append(str(raised.value))
    assert told[0] == told[1]
    (path,) = tmp_path.iterdir()
    assert told[0] == campaign.replay(rig, path)
    monkeypatch.undo()
    assert not campaign.replay(rig, path)


def test_a_frame_that_is_not_counted_as_told_is_found(rig, monkeypatch, tmp_path):
    """Only the counters tell that frames of this outcome may come back changed."""
    monkeypatch.setattr(campaign, "EVIDENCE", tmp_path)
    monkeypatch.setitem(campaign.CHANGED, DROP, set())
    with pytest.raises(campaign.BrokenInvariantError, match="came back changed"):
        Campaign(rig, "opt").run(0, regressions("opt"))
