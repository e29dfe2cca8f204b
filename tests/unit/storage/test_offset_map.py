"""The map of keys that compaction works by."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.storage.offset_map import SLOT_BYTES, OffsetMap


@given(
    st.lists(st.tuples(st.binary(max_size=3), st.integers(0, 2**62)), max_size=200),
    st.integers(201, 400),
)
@settings(max_examples=60, deadline=None)
def test_it_is_a_dictionary(puts: list[tuple[bytes, int]], slots: int) -> None:
    offsets = OffsetMap(slots * SLOT_BYTES + SLOT_BYTES * 20)
    expected: dict[bytes, int] = {}
    for key, offset in puts:
        offsets.put(key, offset)
        expected[key] = offset
    assert offsets.size == len(expected)
    for key in [*expected, b"another", b"", bytes(100)]:
        assert offsets.get(key) == expected.get(key, -1)


@pytest.mark.parametrize("memory", [0, 100, 1_000, 65_536, 1_000_003])
def test_it_takes_the_memory_it_is_given_and_fills_it_but_for_one_slot(memory: int) -> None:
    offsets = OffsetMap(memory)
    assert offsets.slots * SLOT_BYTES <= max(memory, 5 * SLOT_BYTES)
    assert offsets.slots >= memory // SLOT_BYTES * 0.8
    for number in range(offsets.slots - 1):
        offsets.put(b"%d" % number, number)
    assert offsets.utilization == pytest.approx(1, abs=0.21)
    assert all(offsets.get(b"%d" % number) == number for number in range(offsets.slots - 1))
    assert offsets.get(b"missing") == -1
    offsets.put(b"0", 7)  # one that is there always fits
    assert offsets.get(b"0") == 7
    with pytest.raises(AssertionError):
        offsets.put(b"one too many", 1)


def test_few_keys_take_little_memory() -> None:
    assert 100 < OffsetMap(1 << 30, keys=100).slots <= 200
