"""Every answer that has a place for a throttle time gets it, in every version and form."""

import pytest

from kavka.broker.dispatch import HANDLERS
from kavka.broker.fetch.response import write_response
from kavka.broker.produce import single
from kavka.broker.quotas.answers import with_throttle
from kavka.broker.request import Raw
from kavka.protocol import codec, keys
from kavka.protocol.messages.k00_produce import ProduceResponse
from kavka.protocol.messages.k01_fetch import FetchResponse
from kavka.protocol.messages.k18_api_versions import ApiVersion, ApiVersionsResponse

VERSIONS = [
    (key, version)
    for key, entry in HANDLERS.items()
    for version in range(entry.min_version, entry.max_version + 1)
]
MS = 4_711


def told(key: int, version: int, body: bytes) -> int | None:
    """The throttle time in a body; None where the version has none."""
    message = codec.decode(keys.message_classes(key)[1], body, version)
    assert codec.encode(message, version) == body
    fields = {field.name: field for field in message.FIELDS}
    field = fields.get("throttle_time_ms")
    if field is None or not field.present(version):
        return None
    value = message.throttle_time_ms  # type: ignore[attr-defined]
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize("key", sorted(HANDLERS))
def test_messages_and_bodies_of_every_version(key: int) -> None:
    response_class = keys.message_classes(key)[1]
    for version in range(HANDLERS[key].min_version, HANDLERS[key].max_version + 1):
        body = codec.encode(response_class(), version)
        before = told(key, version, body)
        expected = None if before is None else MS
        patched = with_throttle(key, version, body, MS)
        assert isinstance(patched, bytes)
        assert told(key, version, patched) == expected
        message = with_throttle(key, version, response_class(), MS)
        assert isinstance(message, response_class)
        assert told(key, version, codec.encode(message, version)) == expected


def test_every_throttled_version_is_told() -> None:
    """The numbers of the protocol: which APIs never learn how long they are made to wait."""
    silent = {
        key
        for key, version in VERSIONS
        if version == HANDLERS[key].max_version
        and told(key, version, codec.encode(keys.message_classes(key)[1](), version)) is None
    }
    assert silent <= {4, 5, 6, 7, 17, 27, 36}  # what brokers tell each other, and logins


@pytest.mark.parametrize("version", range(3, 12))
def test_the_short_answer_to_a_produce(version: int) -> None:
    body = single.answer(version, b"orders", 3, 17, -1, 5)
    patched = with_throttle(0, version, body, MS)
    assert isinstance(patched, bytes)
    response = codec.decode(ProduceResponse, patched, version)
    assert response.throttle_time_ms == MS
    response.throttle_time_ms = 0
    assert codec.encode(response, version) == body


@pytest.mark.parametrize("version", range(18))
def test_the_parts_of_a_fetch(version: int) -> None:
    parts = write_response(version, 0, 0, ())
    patched = with_throttle(1, version, Raw([*parts, b"records"]), MS)
    assert isinstance(patched, Raw)
    *head, records = patched.parts
    assert records == b"records"
    response = codec.decode(FetchResponse, b"".join(map(bytes, head)), version)  # type: ignore[arg-type]
    assert response.throttle_time_ms == (MS if version >= 1 else 0)


def test_an_answer_that_others_get_too_is_not_changed() -> None:
    shared = codec.encode(ApiVersionsResponse(api_keys=[ApiVersion(api_key=1)]), 3)
    copy = bytes(shared)
    with_throttle(18, 3, shared, MS)
    assert shared == copy


def test_the_longer_wait_is_told() -> None:
    response = ProduceResponse(throttle_time_ms=9_000)
    assert with_throttle(0, 7, response, MS) is response
    assert response.throttle_time_ms == 9_000
    assert with_throttle(0, 7, None, MS) is None
