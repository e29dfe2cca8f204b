"""Declared classes as Python objects."""

import pytest

from kavka.protocol.messages.k01_fetch import FetchRequest, FetchTopic
from kavka.protocol.messages.k36_sasl_authenticate import SaslAuthenticateRequest
from kavka.protocol.messages.k69_consumer_group_describe import Member
from kavka.protocol.schema import (
    ZERO_UUID,
    Message,
    Struct,
    array,
    binary,
    boolean,
    float64,
    int32,
    nested,
    record_data,
    string,
    uuid,
)


class Point(Struct):
    x: int = int32()
    y: int = int32(default=-1)


class Sample(Message, versions=(2, 5), flexible=4):
    name: str = string()
    note: str | None = string(since=3, nullable=True, default=None)
    ratio: float = float64()
    sure: bool = boolean(default=True)
    id: bytes = uuid()
    blob: bytes = binary()
    points: list[Point] = array(Point)
    numbers: list[int] | None = array(int32, nullable=True, default=None)
    origin: Point = nested(Point)
    hint: Point | None = nested(Point, since=4, tag=0)
    records: bytes | bytearray | memoryview | None = record_data(nullable=True)


def test_defaults_are_kafkas_zero_values() -> None:
    sample = Sample()
    assert (sample.name, sample.note, sample.ratio, sample.sure) == ("", None, 0.0, True)
    assert (sample.id, sample.blob, sample.records) == (ZERO_UUID, b"", None)
    assert (sample.points, sample.numbers, sample.hint) == ([], None, None)
    assert sample.origin == Point(x=0, y=-1)


def test_lists_and_structs_are_made_anew_for_each_object() -> None:
    one, other = Sample(), Sample()
    one.points.append(Point())
    one.origin.x = 5
    assert other.points == []
    assert other.origin.x == 0


def test_unknown_names_are_refused() -> None:
    with pytest.raises(TypeError, match="nothing"):
        Point(nothing=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="nothing"):
        Point(nothing=1)  # type: ignore[call-arg]  # compiled by now
    with pytest.raises(AttributeError):
        Point().z = 1  # type: ignore[attr-defined]


def test_equality_is_by_type_and_fields() -> None:
    assert Point(x=1) == Point(x=1)
    assert Point(x=1) != Point(x=2)
    assert FetchTopic() != Point()
    assert Sample(points=[Point(x=1)]) == Sample(points=[Point(x=1)])


def test_versions_of_a_message() -> None:
    assert (Sample.MIN_VERSION, Sample.MAX_VERSION, Sample.API_KEY) == (2, 5, None)
    assert [Sample.is_flexible(version) for version in (3, 4)] == [False, True]
    assert not any(Unflexible.is_flexible(version) for version in range(100))


class Unflexible(Message, versions=(0, 0)):
    pass


def test_presence_and_nullability_by_version() -> None:
    fields = {field.name: field for field in FetchRequest.FIELDS}
    assert [fields["replica_id"].present(v) for v in (0, 14, 15)] == [True, True, False]
    note = next(field for field in Sample.FIELDS if field.name == "note")
    assert [note.nullable(v) for v in (2, 3)] == [False, True]


def test_bytes_never_show_in_logs() -> None:
    request = SaslAuthenticateRequest(auth_bytes=b"\0user\0secret")
    assert repr(request) == "SaslAuthenticateRequest(auth_bytes=<12 bytes>)"


def test_structs_with_structs_inside_construct() -> None:
    assert Member().assignment.topic_partitions == []
