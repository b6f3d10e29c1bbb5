"""Fixtures that several test folders share."""

import sys

import pytest

from threedme_ros.anatomy import Anatomy
from threedme_ros.samples import SampleError, fetch_samples
from threedme_ros.share import share_path


@pytest.fixture(scope="session")
def anatomy() -> Anatomy:
    """The label table that ships."""
    return Anatomy.from_yaml(share_path("config/anatomy.yaml"))


@pytest.fixture(scope="session")
def samples():
    """The folder of real sample volumes, fetched once; skips, with the reason, where no registry can be reached."""
    try:
        return fetch_samples()
    except SampleError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def subnormal_numbers():
    """A training rounds them to zero, in its thread and from then on: not in the tests that come after."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_flush_denormal(False)
