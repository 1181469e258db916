"""Want against have: ordered operations, what they mean for traffic, and how they read (pure)."""

from __future__ import annotations

from datapath.plan.diff import Plan, plan
from datapath.plan.disruption import disruption

__all__ = ["Plan", "disruption", "plan"]
