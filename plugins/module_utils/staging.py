# SPDX-License-Identifier: Apache-2.0
"""Files that nobody else may ever read, and that are whole at all times."""

from __future__ import annotations

import os


def beside(path):
    """Where a file is while it is not in its place."""
    return path.with_name(path.name + ".partial")


def stage(path, content, adopt=lambda descriptor: None):
    """Write a file beside its place, from where it is to be renamed; returns that.

    `adopt` gives the open file owner and mode, which are this user and 0600 else.
    """
    partial = beside(path)
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
        adopt(stream.fileno())
    return partial
