"""Some of these tests sync a store to disk at every step."""

from tests.unit.replication.conftest import tmp_path

__all__ = ["tmp_path"]
