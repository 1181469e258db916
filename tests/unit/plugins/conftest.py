"""Makes the checkout importable as the collection, and gives modules a stand-in for the command `datapath`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "collections"))

STAND_IN = """
import json, pathlib, sys
here = pathlib.Path(__file__).parent
calls = here / "calls.json"
seen = json.loads(calls.read_text()) if calls.exists() else []
text = "" if "info" in sys.argv else sys.stdin.read()
seen.append({"arguments": sys.argv[1:], "document": json.loads(text) if text else None})
calls.write_text(json.dumps(seen))
answers = json.loads((here / "answers.json").read_text())
answer = answers[min(len(seen), len(answers)) - 1]
print(answer["out"])
print(answer.get("err", ""), file=sys.stderr)
sys.exit(answer["rc"])
"""


class StandIn:
    """An executable that answers what it is told to and remembers how it was called."""

    def __init__(self, folder: Path):
        self.path = folder / "datapath.pyz"
        self.path.write_text(STAND_IN, encoding="utf-8")
        self._folder = folder

    def answers(self, *answers):
        rows = [
            {"rc": code, "out": out if isinstance(out, str) else json.dumps(out), "err": err}
            for code, out, err in answers
        ]
        (self._folder / "answers.json").write_text(json.dumps(rows), encoding="utf-8")

    @property
    def calls(self):
        return json.loads((self._folder / "calls.json").read_text(encoding="utf-8"))


@pytest.fixture
def stand_in(tmp_path):
    return StandIn(tmp_path)


@pytest.fixture
def run_module(capsys):
    """Runs a module's main() with these arguments; returns what it printed."""
    from ansible.module_utils.testing import patch_module_args

    def run(module, check=False, diff=False, **arguments):
        internal = {"_ansible_check_mode": check, "_ansible_diff": diff}
        with patch_module_args({**arguments, **internal}), pytest.raises(SystemExit) as end:
            module.main()
        result = json.loads(capsys.readouterr().out)
        assert bool(end.value.code) == bool(result.get("failed"))
        return result

    return run
