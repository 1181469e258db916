"""How large a store may become: etcd tells it by gRPC from 3.6 on, and by its metrics before."""

from __future__ import annotations

from typing import Optional

import httpx

from datapath.etcd.dial import Credentials
from datapath.state.model import StoreEndpoint

_METRIC = "etcd_server_quota_backend_bytes "
_TIMEOUT = 5.0


async def read_quota(endpoint: StoreEndpoint, credentials: Credentials) -> Optional[int]:
    """Bytes that the database of the member may have; None where it does not tell. Raises StoreError."""
    # Of its own: what speaks HTTP/1.1 says so in the context.
    context, _ = credentials.load()
    try:
        async with httpx.AsyncClient(verify=context, trust_env=False, timeout=_TIMEOUT) as client:
            answer = await client.get(f"https://{endpoint}/metrics")
    except httpx.HTTPError:
        return None
    return parse_quota(answer.text) if answer.status_code == httpx.codes.OK else None


def parse_quota(metrics: str) -> Optional[int]:
    """The quota in Prometheus' text format."""
    for line in metrics.splitlines():
        if line.startswith(_METRIC):
            try:
                return int(float(line[len(_METRIC) :]))
            except (ValueError, OverflowError):
                return None
    return None
