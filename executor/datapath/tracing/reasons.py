"""Names of the reasons for which the kernel drops packets, from its own description of skb:kfree_skb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Optional

_FIELD = re.compile(r"^\s*field:.*\breason;", re.MULTILINE)
_TABLE = re.compile(r"__print_symbolic\(REC->reason,(.*)$", re.MULTILINE)
_NAME = re.compile(r'\{\s*(0x[0-9a-fA-F]+|\d+)\s*,\s*"([^"]+)"\s*\}')


def parse(description: str) -> Optional[Mapping[int, str]]:
    """Number -> name; None where the kernel (before 5.17) tells no reasons."""
    if not _FIELD.search(description):
        return None
    table = _TABLE.search(description)
    return {int(number, 0): name for number, name in _NAME.findall(table[1])} if table else {}
