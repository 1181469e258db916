"""How large a store may become."""

import pytest

from datapath.etcd.quota import parse_quota

METRICS = """\
# HELP etcd_server_quota_backend_bytes Current backend storage quota size in bytes.
# TYPE etcd_server_quota_backend_bytes gauge
etcd_server_quota_backend_bytes 2.147483648e+09
"""


@pytest.mark.parametrize(
    ("text", "wanted"), [(METRICS, 2 << 30), ("", None), ("etcd_server_quota_backend_bytes NaN\n", None)]
)
def test_the_quota_in_metrics(text, wanted):
    assert parse_quota(text) == wanted
