"""How long certificates are valid still, for people."""

from __future__ import annotations

import time
from typing import Optional

_EXPIRES_SOON = 60 * 86400.0


def expiry_hint(whose: str, expires: Optional[float]) -> Optional[str]:
    """That a certificate expires, where that is soon (`expires` in seconds since the epoch)."""
    left = None if expires is None else expires - time.time()
    if left is None or left > _EXPIRES_SOON:
        return None
    return f"{whose} expires in {max(left, 0) / 86400:.0f} days"
