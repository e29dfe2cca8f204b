"""CRC-32C, from the ``crc32c`` distribution's C extension, loaded without its package.

``import crc32c`` spends 40 ms and more on ``importlib.metadata`` and a command line that a broker
never uses; the extension beside it loads in about one. Where it cannot be found (a zip, an exotic
installer) the ordinary import is the fallback.
"""

import sys
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Protocol, TypeAlias, cast

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Bytes that can be read in place. Wrap a mapped file in a memoryview."""

WritableBuffer: TypeAlias = bytearray | memoryview
"""Bytes that can be patched in place; a memoryview must not be read-only."""


class Crc32c(Protocol):
    """The checksum's signature: pass an earlier result as ``value`` to go on from there."""

    def __call__(self, data: Buffer, value: int = 0, /) -> int: ...


def _load_extension() -> ModuleType | None:
    loaded = sys.modules.get("crc32c._crc32c")
    if loaded is not None:
        return loaded
    package = PathFinder.find_spec("crc32c")
    if package is None or package.submodule_search_locations is None:
        return None
    spec = PathFinder.find_spec("crc32c._crc32c", package.submodule_search_locations)
    if spec is None or spec.loader is None:
        return None
    module = spec.loader.create_module(spec)
    if module is None:
        return None
    spec.loader.exec_module(module)
    return module


def _load() -> Crc32c:
    extension = _load_extension()
    if extension is not None:
        return cast(Crc32c, extension.crc32c)
    import crc32c as package

    return cast(Crc32c, package.crc32c)


crc32c: Crc32c = _load()
"""CRC-32C (Castagnoli) of any buffer, without a copy; large ones are summed without the GIL."""
