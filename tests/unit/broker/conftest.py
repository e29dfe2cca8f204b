"""What tests of several parts of the broker share."""

import pytest

from .tls.certificates import Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority with stores of a broker and a client."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
