"""What the runner of all test stages reads out of their logs."""

from __future__ import annotations

import pytest
from tools import run_tests
from tools.run_tests import counts, failures


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ("======== 12 passed in 3.45s ========", (12, 0)),
        ("=== 1 failed, 984 passed, 2 warnings in 117.21s (0:01:57) ===", (984, 1)),
        ("=== 2 errors in 0.10s ===", (0, 2)),
        ("\x1b[32m== \x1b[32m\x1b[1m414 passed\x1b[0m\x1b[32m in 92.76s ==\x1b[0m", (414, 0)),
        ("        ====== 5 passed in 23.69s ======", (5, 0)),
        ("5 passed, 0 failed", (5, 0)),
        ("default > check: Executed: Successful", (1, 0)),
        ("default ➜ verify: Executed: Missing playbook (Remove from test_sequence to suppress)", (0, 1)),
        ("INFO     [default > check] Executed: Successful", (0, 0)),
        ("lb1 : ok=20 changed=0 unreachable=0 failed=0", (0, 0)),
        ("the test that 3 failed before is there", (0, 0)),
    ],
)
def test_counts(log, expected):
    assert counts(f"before\n{log}\nafter\n") == expected


def test_what_failed_is_named():
    named = (
        "FAILED tests/unit/test_x.py::test_y[3] - assert 1 == 2",
        "ERROR tests/unit/test_z.py - ImportError",
        "kernels: bandwidth-6.1: FAILED tests/bandwidth/test_rates.py::test_a_flood",
        "default > verify: Executed: Failed",
    )
    log = "\n".join(("all is well", *named, "default > check: Executed: Successful", "it says FAILED in the middle"))
    assert tuple(failures(log)) == named


def test_the_end_of_the_output_names_what_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_tests, "LOGS", tmp_path)
    (tmp_path / "test-unit.log").write_text(f"FAILED tests/unit/test_x.py::test_y - {'x' * 1000}\n2 failed")
    good = run_tests.Outcome("lint", 1, 1, ok=True, passed=1, failed=0)
    bad = run_tests.Outcome("test-unit", 1, 1, ok=False, passed=3, failed=1)
    *named, count = run_tests.summary((good, bad)).splitlines()
    assert count == "4 passed, 1 failed"
    assert [each[:53] for each in named] == ["test-unit: FAILED tests/unit/test_x.py::test_y - xxxx"]
    assert len(named[0]) < 320


STAGE = """
stages = bpf second third
.PHONY: $(stages) test-tracing
$(stages):
	@echo $@
	@! test $@ = second
test-tracing:
	@while ! test -e go; do sleep 0.01; done; echo "7 passed, 0 failed"
"""


def test_stages_beside_the_others(tmp_path, monkeypatch, capsys):
    """They begin after those that run alone, are shown at their end, and a failure ends nothing."""
    (tmp_path / "Makefile").write_text(STAGE)
    monkeypatch.chdir(tmp_path)
    run_tests.LOGS.mkdir(parents=True)
    ended = []
    for outcome in run_tests.run_all(("bpf", "second", "test-tracing", "third")):
        ended.append((outcome.stage, outcome.ok, outcome.passed, outcome.failed))
        if outcome.stage == "third":
            (tmp_path / "go").touch()
    assert ended == [
        ("bpf", True, 1, 0),
        ("second", False, 0, 1),
        ("third", True, 1, 0),
        ("test-tracing", True, 7, 0),
    ]
    assert "=== test-tracing (ran beside the others)\n7 passed, 0 failed\n" in capsys.readouterr().out
