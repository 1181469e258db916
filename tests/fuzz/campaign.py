"""A stream of frames through one mode of the program, and what is kept of those that break an invariant."""

import itertools
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from bpf.rig import CHOICE_MAPS, FLOW_MAPS, FRAGMENTS, SIDES
from datapath.compile import layouts
from datapath.compile.outcomes import OUTCOMES
from datapath.plan import operations as ops
from fuzz import mutate, seeds
from fuzz.invariants import CHANGED, VERDICTS, check, check_dearly
from fuzz.runner import Runner

REPOSITORY = Path(__file__).parents[2]
EVIDENCE = REPOSITORY / "build" / "evidence" / "fuzz"
REGRESSIONS = sorted((Path(__file__).parent / "regressions").glob("*.hex"))
SEED = 20261121
PACKETS = 5_000_000
"""Of all modes together."""
BATCH = 1000
REFILL = 20 * BATCH
"""Frames after which there may be as many ICMP errors as in a new second: in between, the limit is met too."""
DEAR = 100
"""One of so many frames gets the dear checks."""
BUDGETS = ("answer_budget_v1", "relay_budget_v1")
PEERS = (11, 12)
"""Other load balancers, by number on the link of backends."""
SNAT, DSR = layouts.MODE_SNAT, layouts.MODE_DSR
MODES = {
    "snat": {"forwarding_modes": SNAT},
    "opt": {"forwarding_modes": DSR, "dsr_dispatch": layouts.DISPATCH_OPT},
    "ipip": {"forwarding_modes": DSR, "dsr_dispatch": layouts.DISPATCH_IPIP},
    "geneve": {"forwarding_modes": DSR, "dsr_dispatch": layouts.DISPATCH_GENEVE},
    "both": {"forwarding_modes": SNAT | DSR, "dsr_dispatch": layouts.DISPATCH_OPT},
    "peers": {"forwarding_modes": SNAT, "peers": 1},
}


@dataclass(frozen=True)
class Place:
    """Where in which stream a frame was."""

    mode: str
    seed: int
    index: int
    device: str


class BrokenInvariantError(AssertionError):
    """Of a frame, which is written down."""


def keep(frame, place, reason):
    """Write a frame down; the error to raise."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    path = EVIDENCE / f"{place.mode}-{place.seed}-{place.index}.hex"
    path.write_text(f"# {reason}\n# {place.mode} {place.seed} {place.index} {place.device}\n{frame.hex()}\n")
    name = os.path.relpath(path, REPOSITORY)
    return BrokenInvariantError(
        f"{reason}: mode {place.mode}, seed {place.seed}, frame {place.index}; replay:"
        f" PYTHONPATH=executor:tests python3 -m fuzz --replay {name}"
    )


def read(path):
    """(frame, Place) of a file that `keep` wrote."""
    lines = Path(path).read_text().split("\n")
    mode, seed, index, device = lines[1][2:].split()
    frame = bytes.fromhex(lines[2])
    return frame, Place(mode, int(seed), int(index), device)


class Campaign:
    """One mode of the program."""

    def __init__(self, rig, mode, seed=SEED):
        self.rig, self.mode, self.seed = rig, mode, seed
        rig.restore()
        rig.configure(**MODES[mode])
        for version, side in SIDES.items():
            rig.put_peers(version, side.snat, *(side.backend.format(host) for host in PEERS))
        self.runner = Runner(rig)
        self.counted = rig.outcomes()
        self.totals = {}
        self.seconds = 0.0

    def run(self, packets, extra=()):
        """Push so many frames of the stream through; `extra` ones come first."""
        began = time.monotonic()
        stream = mutate.stream(random.Random(f"{self.seed}/{self.mode}"), seeds.make())
        numbered = ((each, number) for number, each in enumerate(itertools.islice(stream, packets)))
        for number, each in enumerate(extra):
            self.push([(each, -1 - number)])
        while True:
            batch = list(itertools.islice(numbered, BATCH))
            if not batch:
                break
            if batch[0][1] % REFILL == 0:
                self.refill()
            self.push(batch)
        self.check_sizes()
        self.seconds = time.monotonic() - began

    def refill(self):
        for name in BUDGETS:
            for key, value in self.rig.entries(name):
                self.rig.kernel.execute([ops.PutEntry(name, key, bytes(len(value)))])

    def push(self, batch):
        """Push frames through, and compare the counters with what became of them."""
        push, verdicts, changed = self.runner.push, {}, dict.fromkeys(CHANGED, 0)
        for (frame, device), index in batch:
            try:
                verdict, after = push(frame, device)
                check(frame, verdict, after)
                if index % DEAR == 0 or len(batch) == 1:
                    check_dearly(frame, verdict, after)
            except (AssertionError, IndexError, OSError) as e:
                raise keep(frame, Place(self.mode, self.seed, index, device), repr(e) if not str(e) else str(e)) from e
            verdicts[verdict] = verdicts.get(verdict, 0) + 1
            if verdict in changed and after != frame:
                changed[verdict] += 1
        wrong = self.count(batch, verdicts, changed)
        if wrong:
            raise self.narrow(batch, wrong)

    def count(self, batch, verdicts, changed):
        """What the counters of a batch got wrong, or nothing."""
        after, grown, size, may_change = self.rig.outcomes(), {}, 0, dict.fromkeys(CHANGED, 0)
        for outcome in OUTCOMES:
            packets, length = after.get(outcome.name, (0, 0))
            packets_before, length_before = self.counted.get(outcome.name, (0, 0))
            if packets == packets_before and length == length_before:
                continue
            grew = packets - packets_before
            self.totals[outcome.name] = self.totals.get(outcome.name, 0) + grew
            verdict = VERDICTS[outcome.verdict.value]
            grown[verdict] = grown.get(verdict, 0) + grew
            size += length - length_before
            if outcome.name in CHANGED.get(verdict, ()):
                may_change[verdict] += grew
        self.counted = after
        pushed = sum(len(frame) for (frame, _), _ in batch)
        if grown != verdicts:
            return f"verdicts {verdicts}, but counted {grown}"
        if size != pushed:
            return f"{pushed} bytes were pushed, but {size} counted"
        for verdict, number in changed.items():
            if number > may_change[verdict]:
                names = " or ".join(sorted(CHANGED[verdict]))
                return f"{number} frames came back changed, but only {may_change[verdict]} counted as {names}"
        return ""

    def narrow(self, batch, wrong):
        """The error for a batch: about the one frame that does it again, where there is one."""
        for (frame, device), index in batch if len(batch) > 1 else ():
            verdict, after = self.runner.push(frame, device)
            changed = {verdict: after != frame} if verdict in CHANGED else {}
            reason = self.count([((frame, device), index)], {verdict: 1}, changed)
            if reason:
                return keep(frame, Place(self.mode, self.seed, index, device), reason)
        (frame, device), index = batch[-1]
        place = Place(self.mode, self.seed, index, device)
        return keep(frame, place, f"{wrong} (of the {len(batch)} frames up to this one)")

    def check_sizes(self):
        for name in (*FLOW_MAPS, *CHOICE_MAPS, FRAGMENTS):
            held, most = len(self.rig.entries(name)), self.rig.most_entries(name)
            assert held <= most, f"{name} holds {held} entries, of {most}"


def replay(rig, path):
    """Push a kept frame through again: alone, then at its place in its stream. What was found, or nothing."""
    frame, place = read(path)
    campaign = Campaign(rig, place.mode, place.seed)
    try:
        campaign.push([((frame, place.device), place.index)])
        if place.index >= 0:
            campaign.run(place.index + 1)
    except BrokenInvariantError as e:
        return str(e)
    return ""


def regressions(mode):
    """Frames that broke an invariant of this mode once."""
    kept = [read(path) for path in REGRESSIONS]
    return [(frame, place.device) for frame, place in kept if place.mode == mode]
