"""Settings that all tests share."""

import os

from hypothesis import HealthCheck, settings

# How long an example takes says what else the machine does, and nothing about the code.
_TIMELESS = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
# CI draws the same examples every time, so that it fails for a change and not by chance; runs by hand go on searching.
settings.register_profile("ci", derandomize=True, **_TIMELESS)
settings.register_profile("by hand", **_TIMELESS)
settings.load_profile("ci" if os.environ.get("CI") else "by hand")
