# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from ansible_collections.ebpf.datapath.plugins.plugin_utils import collection, mesh_preflight, mesh_stores


def clustermesh_view(view, asked, node, answers=(), targets=()):
    """What is known of a host, with what was seen there."""
    view, asked, node = (collection.plain(each) for each in (view, asked, node))
    for peer in view["external"]:
        peer["errors"] = mesh_stores.of_files(peer)
    files = {peer.get("name"): peer for peer in view["external"]}
    stores = mesh_stores.judged(collection.plain(targets), collection.plain(answers), files)
    options = {**view["options"], **asked["effective"]}
    seen = {"errors": asked["errors"], "options": options, "node": node, "stores": stores}
    return {**view, **seen, "skew": mesh_stores.skew(node)}


def clustermesh_findings(views, certificates=None, warn_skew=None, refuse_skew=None):
    """What stands against connecting clusters ("refusals"), what is told ("warnings"), and what answered ("seen")."""
    views = collection.plain(views)
    limits = [mesh_preflight.WARN_SKEW if warn_skew is None else float(warn_skew)]
    limits += [mesh_preflight.REFUSE_SKEW if refuse_skew is None else float(refuse_skew)]
    found = mesh_preflight.judge(views, *limits)
    result = collection.plain(certificates or {})
    if "authorities" not in result and result.get("msg"):
        found["refusals"].append(result["msg"])
    found["seen"] = [row for view in views for row in mesh_stores.lines(view)]
    return found


class FilterModule:
    def filters(self):
        return {"clustermesh_view": clustermesh_view, "clustermesh_findings": clustermesh_findings}
