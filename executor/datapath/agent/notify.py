"""The service manager's notification protocol, sd_notify(3)."""

from __future__ import annotations

import os
import socket
from typing import Optional


def notify(message: str) -> bool:
    """Send lines such as `READY=1`; False where nobody asked to be told."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):  # an abstract socket
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as client:
        try:
            client.sendto(message.encode(), address)
        except OSError:
            return False
    return True


def watchdog_interval() -> Optional[float]:
    """Seconds between two signs of life, half of what the service manager waits for; None where it does not wait."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None
    return int(microseconds) / 2e6
