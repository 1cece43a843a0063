"""Fixtures of the tests of training."""

from pathlib import Path

import pytest

from tests.training import write_images


@pytest.fixture(scope="package")
def images(tmp_path_factory) -> Path:
    """A folder of 32 small JPEGs."""
    return write_images(tmp_path_factory.mktemp("images"), 32)
