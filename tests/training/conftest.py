"""What most trainings of these tests share."""

from pathlib import Path

import pytest
from tiny_runs import make_corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A folder with a few seconds of audio to train on, new for each test."""
    make_corpus(tmp_path)
    return tmp_path
