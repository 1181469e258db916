"""Generates `bpf/include/outcomes.h` and its like from `datapath.compile.outcomes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from datapath.compile.outcomes import BANDWIDTH_OUTCOMES, NODE_OUTCOMES, OUTCOMES, Outcome, Verdict

PATH = "bpf/include/outcomes.h"
NODE_PATH = "bpf/include/node_outcomes.h"
BANDWIDTH_PATH = "bpf/include/bandwidth_outcomes.h"

_HEAD = """\
/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Generated from executor/datapath/compile/outcomes.py; do not edit. */
#pragma once

"""

_MASKS = """
/* Sets of outcomes by verdict; bit n stands for outcome n. Everything else is dropped. */
"""


def outputs() -> Mapping[str, str]:
    """Path relative to the repository -> text."""
    return {
        PATH: header(OUTCOMES),
        NODE_PATH: header(NODE_OUTCOMES, "NODE_"),
        BANDWIDTH_PATH: header(BANDWIDTH_OUTCOMES, "BANDWIDTH_"),
    }


def header(outcomes: Sequence[Outcome], prefix: str = "") -> str:
    """The header's text: the enum, and one bit mask for each verdict of the table but drop.

    A 64-bit mask holds as many outcomes as there are bits.
    """
    if len(outcomes) > 64:
        raise ValueError("more outcomes than bits in a verdict mask")
    rows = "".join(f"\t/* {item.sentence} */\n\t{prefix}OUTCOME_{item.name.upper()},\n" for item in outcomes)
    used = {item.verdict for item in outcomes} - {Verdict.DROP}
    counted = [verdict for verdict in Verdict if verdict in used]
    masks = "".join(f"#define {prefix}OUTCOMES_{each.name} {_mask(outcomes, each):#x}ULL\n" for each in counted)
    return f"{_HEAD}enum {prefix.lower()}outcome {{\n{rows}\t{prefix}OUTCOMES_COUNT,\n}};\n{_MASKS}{masks}"


def _mask(outcomes: Sequence[Outcome], verdict: Verdict) -> int:
    return sum(1 << index for index, item in enumerate(outcomes) if item.verdict is verdict)
