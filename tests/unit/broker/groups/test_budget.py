"""What the members of all groups hold is bounded, and is counted anew when it seems too much."""

import pytest

from kavka.broker.groups.messages import Leave
from kavka.protocol.errors import ErrorCode
from tests.unit.broker.groups.harness import Harness

LIMIT = 100_000
LARGE = bytes(30_000)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Harness:
    monkeypatch.setattr("kavka.config.limits.GROUP_MEMBERS_BYTES_MAX", LIMIT)
    return Harness()


def test_members_are_refused_while_all_hold_too_much(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    joined = [harness.join(group=f"g{i}", metadata=LARGE).joined for i in range(4)]
    assert [result.error for result in joined] == [
        *(ErrorCode.NONE,) * 3,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ]
    assert "hold too much group=g3" in caplog.text
    assert harness.join(group="small").joined.error is ErrorCode.NONE
    # One goes, but it is not looked for who has gone before a second has passed.
    harness.groups.leave("g0", [Leave(joined[0].member_id)])
    refused = harness.join(group="g4", metadata=LARGE).joined
    assert refused.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
    harness.clock.advance(1)
    assert harness.join(group="g4", metadata=LARGE).joined.error is ErrorCode.NONE


def test_joining_again_does_not_count_twice_for_ever(harness: Harness) -> None:
    member_id = harness.join(metadata=LARGE).joined.member_id
    for _ in range(10):
        harness.clock.advance(1)
        again = harness.join(member_id=member_id, metadata=LARGE).joined
        assert again.error is ErrorCode.NONE


def test_promised_ids_count(harness: Harness) -> None:
    for i in range(49):
        first = harness.join(group=f"g{i}", version=4).joined
        assert first.error is ErrorCode.MEMBER_ID_REQUIRED
    refused = harness.join(group="one more", version=4).joined
    assert refused.error is ErrorCode.COORDINATOR_NOT_AVAILABLE
