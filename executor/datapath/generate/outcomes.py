"""Generates `bpf/include/outcomes.h` from `datapath.compile.outcomes`."""

from __future__ import annotations

from collections.abc import Mapping

from datapath.compile.outcomes import OUTCOMES, Verdict

PATH = "bpf/include/outcomes.h"

_HEAD = """\
/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0) */
/* Generated from executor/datapath/compile/outcomes.py; do not edit. */
#pragma once

enum outcome {
"""

_MASKS = """
/* Sets of outcomes by verdict; bit n stands for outcome n. Everything else is dropped. */
"""


def outputs() -> Mapping[str, str]:
    """Path relative to the repository -> text."""
    return {PATH: header()}


def header() -> str:
    """The header's text: the enum, and one bit mask for each verdict but drop.

    A 64-bit mask holds as many outcomes as there are bits.
    """
    if len(OUTCOMES) > 64:
        raise ValueError("more outcomes than bits in a verdict mask")
    rows = "".join(f"\t/* {item.sentence} */\n\tOUTCOME_{item.name.upper()},\n" for item in OUTCOMES)
    counted = [verdict for verdict in Verdict if verdict is not Verdict.DROP]
    masks = "".join(f"#define OUTCOMES_{verdict.name} {_mask(verdict):#x}ULL\n" for verdict in counted)
    return f"{_HEAD}{rows}\tOUTCOMES_COUNT,\n}};\n{_MASKS}{masks}"


def _mask(verdict: Verdict) -> int:
    return sum(1 << index for index, item in enumerate(OUTCOMES) if item.verdict is verdict)
