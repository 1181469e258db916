"""How programs are attached to tc: by TCX, which kernels have from 6.6 on, or by a filter of qdisc clsact."""

import os

from datapath.kernel import features, programs, tc

TC_HOOKS = ("tcx", "clsact") if features.has("tcx") else ("clsact",)
"""Those of this kernel: TCX first, which is taken where it is there."""
if "DATAPATH_TEST_KERNEL" in os.environ:
    # What is slow in a guest is tried as its kernel does it; other guests have clsact alone.
    TC_HOOKS = TC_HOOKS[:1]


def attach_by(hook, monkeypatch):
    """Have the executor attach by one of TC_HOOKS."""
    for module in (tc, programs):
        monkeypatch.setattr(module, "has", lambda name: features.has(name) and (name, hook) != ("tcx", "clsact"))
