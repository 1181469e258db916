"""Settings that all tests share."""

import os

from hypothesis import settings

# CI draws the same examples every time, so that it fails for a change and not by chance; runs by hand go on searching.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
