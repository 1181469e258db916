"""How a failed command looks."""

import json

from datapath.cli.errors import NO_AGENT, REFUSED, Failure, report

ERROR = {
    "document": "services",
    "path": "services.items[0].frontends[1].port",
    "value": 70000,
    "message": "out of range",
    "allowed": "1 to 65535",
    "nearest": None,
}


def test_text_goes_to_stderr(capsys):
    assert report(Failure(REFUSED, [ERROR]), "text") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: services.items[0].frontends[1].port: out of range",
        "  value: 70000",
        "  allowed: 1 to 65535",
    ]


def test_nearest_and_log(capsys):
    report(Failure(REFUSED, [{"document": "options", "path": "", "message": "unknown", "nearest": "mode"}]), "text")
    report(
        Failure(1, [{"document": "kernel", "path": "PutProgram", "message": "refused", "log": "0: R1\n1: bad\n"}]),
        "text",
    )
    assert capsys.readouterr().err.splitlines() == [
        "error: options: unknown",
        "  did you mean: mode",
        "error: PutProgram: refused",
        "  log:",
        "    0: R1",
        "    1: bad",
    ]


def test_json_goes_to_stdout(capsys):
    assert report(Failure(NO_AGENT, [ERROR]), "json") == 4
    out, err = capsys.readouterr()
    assert json.loads(out) == {"errors": [ERROR]}
    assert err == ""
