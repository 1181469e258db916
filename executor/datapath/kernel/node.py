"""The programs of a backend that answers clients itself."""

from __future__ import annotations

from datapath.kernel import tc
from datapath.kernel.bundle import Bundle, Group
from datapath.kernel.objects import NODE

BUNDLE = Bundle(
    NODE,
    "node_maps",
    # Egress comes first: a request that is let in wants its reply translated.
    (Group("tc_node", {tc.EGRESS: "tc_node_egress", tc.INGRESS: "tc_node_ingress"}),),
)
