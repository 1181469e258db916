"""Parsing of request bodies, and answers to requests that make no sense."""

import pytest

from datapath.agent import handlers
from datapath.spec.errors import SpecErrors


def test_a_document():
    assert handlers.parse(b'{"services": {"items": [1, 1]}}') == {"services": {"items": [1, 1]}}


@pytest.mark.parametrize(
    ("body", "path", "message"),
    [
        (b"", "line 1 column 1", "not JSON"),
        (b'{"a": 1,\n "b": }', "line 2 column 7", "not JSON"),
        (b'{"a": 1, "a": 1}', "a", "given twice"),
        (b'[{"b": {"c": 1, "c": 2}}]', "c", "given twice"),
        (b"\xff{}", "document", "not UTF-8"),
        (b"[" * 200000, "document", "nested too deeply"),
    ],
)
def test_what_is_no_document(body, path, message):
    with pytest.raises(SpecErrors) as caught:
        handlers.parse(body)
    (error,) = caught.value.errors
    assert error.path == path
    assert message in error.message


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("GET", "/v1/apply"), ("DELETE", "/v1/status"), ("GET", "/v2/status")]
)
def test_unknown_resources(method, path):
    status, document = handlers.handle(None, method, path, {}, b"")
    assert status == 404
    assert document["errors"][0]["path"] == path
