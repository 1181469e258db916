"""`python3 -m fuzz`: fuzz the load balancer's program; as root, from the repository's top, after `make bpf`."""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from bpf.conftest import OBJECT, on_a_node
from fuzz.campaign import MODES, PACKETS, BrokenInvariantError, Campaign, regressions, replay


def main():
    parser = argparse.ArgumentParser(prog="python3 -m fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, help="of the stream of frames; by default another one every time")
    parser.add_argument("--packets", type=int, default=PACKETS, help="frames of all modes together")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this one (repeatable)")
    parser.add_argument("--replay", metavar="FILE", help="push a kept frame through again, alone and in its stream")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as pins,
        on_a_node(OBJECT, Path(pins), "xdp") as (node, rig),
        node,
    ):
        if arguments.replay:
            found = replay(rig, arguments.replay)
            print(found or "every invariant holds")
            return int(bool(found))
        seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
        return fuzz(rig, arguments.mode or list(MODES), seed, arguments.packets)


def fuzz(rig, modes, seed, packets):
    broken = 0
    for mode in modes:
        campaign = Campaign(rig, mode, seed)
        try:
            campaign.run(packets // len(modes), regressions(mode))
        except BrokenInvariantError as e:
            print(e)
            broken += 1
            continue
        print(f"{mode}: seed {seed}, {packets // len(modes)} frames in {campaign.seconds:.1f} s")
        for name, count in sorted(campaign.totals.items(), key=lambda each: -each[1]):
            print(f"{count:>10} {name}")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
