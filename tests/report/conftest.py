"""A small contest on disk, for the tests to damage."""

import pytest

from tests.report.contest_folder import write_contest


@pytest.fixture
def home(tmp_path):
    """Two arms, two seeds, no tuning."""
    return write_contest(tmp_path / "demo", {"cosine": 0.0, "wsd": 0.02}, seeds=(1, 2), steps=20)
