"""The mark of tests that cover rows of the fault catalog."""

from __future__ import annotations

import pytest


def row(*ids: str) -> pytest.MarkDecorator:
    """Return the mark of a test that covers the rows *ids* of ``tests/faults/rows.tsv``."""
    return pytest.mark.row(*ids)
