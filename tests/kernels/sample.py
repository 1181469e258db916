"""pytest plugin (`-p kernels.sample`): a few cases of every packet test, evenly chosen, always the same ones.

On another kernel a program could be refused, or a helper do something else: that shows with any case of a packet test.
All cases are tried on the machine's own kernel, which is many times faster than an emulated one. Other tests keep their
cases: one may be for kernels with a feature, the next for those without.
"""

from __future__ import annotations

from collections import defaultdict

SAMPLED = "tests/bpf/"
FEWEST, SHARE = 1, 32
"""Cases of a test that are kept: so many, and one of so many more."""


def chosen(count):
    """Indices of the cases that are kept, of `count`."""
    kept = min(count, FEWEST + count // SHARE)
    return {index * count // kept for index in range(kept)}


def pytest_collection_modifyitems(config, items):
    cases = defaultdict(list)
    for item in items:
        cases[item.nodeid.split("[")[0]].append(item)
    kept = {
        id(tests[index])
        for name, tests in cases.items()
        for index in (chosen(len(tests)) if name.startswith(SAMPLED) else range(len(tests)))
    }
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
    items[:] = [item for item in items if id(item) in kept]
