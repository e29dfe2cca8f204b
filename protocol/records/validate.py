"""What a leader checks of a client's record data before it appends it.

The rules are Kafka's (``ProduceRequest.validateRecords``, the structural part of ``Log.append``
and ``LogValidator``), the work is not: for the ordinary request, one record batch on a topic that
neither compacts nor recompresses nor bounds timestamps downwards, everything is decided by the
61 bytes of header and one checksum. Records are looked at only where a rule needs them:

* compacted topics (every record needs a key),
* finite ``message.timestamp.before.max.ms`` or ``…difference.max.ms``, or a header whose largest
  timestamp lies beyond the bound on the future,
* a forced ``compression.type`` other than the batch's.

Small uncompressed batches are walked at once; what needs decompression, recompression, a longer
walk or conversion from message formats 0 and 1 is only marked (:attr:`needs_conversion`), for
:func:`kavka.protocol.records.convert.convert_append` to do off the event loop.
"""

from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.config.limits import CONVERTED_RECORDS_MAX, DECOMPRESSED_BATCH_BYTES_MAX
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import (
    CODEC_MASK,
    CONTROL_MASK,
    CRC_START,
    CREATE_TIME,
    HEADER_SIZE,
    INT64_MAX,
    INT64_MIN,
    LOG_APPEND_TIME,
    LOG_OVERHEAD,
    MAGIC_OFFSET,
    MIN_RECORD_SIZE,
    NO_TIMESTAMP,
    TIMESTAMP_TYPE_MASK,
    BatchHeader,
    header_fields,
    iter_batches,
    long_varint,
    read_header,
    set_log_append_time,
    set_max_timestamp,
    wrap_int64,
)
from kavka.protocol.records.compression import ZSTD, codec_of_setting
from kavka.protocol.records.crc import crc32c

if TYPE_CHECKING:
    from kavka.config.topic import TopicConfig

UNBOUNDED: Final = INT64_MAX
INLINE_WALK_BYTES: Final = 32 * 1024
INLINE_WALK_RECORDS: Final = 200  # some 0.2 ms of walking; what takes longer leaves the event loop
MAX_RECORD_ERRORS: Final = 100  # of one batch in one response; a million would help nobody

_NOT_FOR_CLIENTS: Final = CONTROL_MASK | TIMESTAMP_TYPE_MASK
_FIRST_MAGIC_2_VERSION: Final = 3  # of Produce: exactly one record batch, of format 2
_FIRST_ZSTD_VERSION: Final = 7
_FIRST_INVALID_RECORD_VERSION: Final = 8


class RecordError(NamedTuple):
    """Why one record was refused; ``batch_index`` counts within its batch (KIP-467)."""

    batch_index: int
    message: str


class RecordsRejected(KafkaError):
    """Some records of a batch break a rule, so none was appended."""

    def __init__(self, code: ErrorCode, message: str, record_errors: list[RecordError]) -> None:
        super().__init__(code, message)
        self.record_errors = record_errors


class AppendRules:
    """What a topic asks of appended records; built once per topic configuration.

    ``before_max_ms`` and ``after_max_ms`` bound how far a CreateTime timestamp may lie in the
    past and future (``UNBOUNDED`` for no bound); ``codec`` is the one ``compression.type`` forces,
    None to keep the producer's; ``decompressed_limit`` bounds the bytes of a batch's records.
    """

    __slots__ = (
        "_looks_at_records",
        "_settled_by_header",
        "after_max_ms",
        "before_max_ms",
        "codec",
        "compacted",
        "decompressed_limit",
        "level",
        "max_message_bytes",
        "timestamp_type",
    )

    def __init__(
        self,
        *,
        max_message_bytes: int,
        decompressed_limit: int = DECOMPRESSED_BATCH_BYTES_MAX,
        compacted: bool = False,
        timestamp_type: int = CREATE_TIME,
        before_max_ms: int = UNBOUNDED,
        after_max_ms: int = UNBOUNDED,
        codec: int | None = None,
        level: int | None = None,
    ) -> None:
        self.max_message_bytes = max_message_bytes
        self.decompressed_limit = decompressed_limit
        self.compacted = compacted
        self.timestamp_type = timestamp_type
        self.before_max_ms = before_max_ms
        self.after_max_ms = after_max_ms
        self.codec = codec
        self.level = level
        self._looks_at_records = compacted or (
            timestamp_type == CREATE_TIME and before_max_ms < UNBOUNDED
        )
        self._settled_by_header = (
            not self._looks_at_records and codec is None and timestamp_type == CREATE_TIME
        )

    @classmethod
    def of(cls, config: "TopicConfig") -> "AppendRules":
        """The rules that a topic's settings make."""
        return cls(
            max_message_bytes=config.max_message_bytes,
            compacted=config.compact,
            timestamp_type=(
                LOG_APPEND_TIME if config.message_timestamp_type == "LogAppendTime" else CREATE_TIME
            ),
            before_max_ms=config.message_timestamp_before_max_ms,
            after_max_ms=config.message_timestamp_after_max_ms,
            codec=codec_of_setting(config.compression_type),
        )

    def ordinary(self, data: memoryview, now_ms: int, produce_version: int) -> BatchHeader | None:
        """The header of a record batch that keeps all rules as it is, which most do.

        None means only that :func:`validate` has to look more closely.
        """
        size = len(data)
        if size < HEADER_SIZE or not self._settled_by_header:
            return None
        fields = header_fields(data)
        # fmt: off
        (base_offset, length, _, magic, crc, attributes, last_offset_delta, _, max_timestamp,
         producer_id, _, base_sequence, count) = fields
        # fmt: on
        codec = attributes & CODEC_MASK
        if (
            magic != 2
            or length != size - LOG_OVERHEAD
            or base_offset != 0
            or size > self.max_message_bytes
            or count <= 0
            or count != last_offset_delta + 1
            or attributes & _NOT_FOR_CLIENTS
            or codec > ZSTD
            or (codec == ZSTD and produce_version < _FIRST_ZSTD_VERSION)
            or (producer_id >= 0 and base_sequence < 0)
            or count * MIN_RECORD_SIZE > (self.decompressed_limit if codec else size - HEADER_SIZE)
            or max_timestamp - now_ms > self.after_max_ms
            or crc32c(data[CRC_START:]) != crc
        ):
            return None
        return tuple.__new__(BatchHeader, fields)

    def must_look_at_records(self, header: BatchHeader, now_ms: int) -> bool:
        """Whether the header alone cannot settle that the batch keeps the rules."""
        return (
            self._looks_at_records
            or (self.codec is not None and self.codec != header.attributes & CODEC_MASK)
            or (
                header.max_timestamp - now_ms > self.after_max_ms
                and self.timestamp_type == CREATE_TIME
            )
        )


class ValidatedAppend:
    """Record batches that keep the rules, in writable views, ready for offset and epoch.

    ``log_append_time`` is what the response reports: the broker's time on LogAppendTime topics,
    else -1. With ``needs_conversion`` the list is empty and the work is not done yet.
    """

    __slots__ = ("batches", "log_append_time", "needs_conversion")

    def __init__(
        self,
        batches: list[tuple[BatchHeader, memoryview]],
        log_append_time: int = NO_TIMESTAMP,
        needs_conversion: bool = False,
    ) -> None:
        self.batches = batches
        self.log_append_time = log_append_time
        self.needs_conversion = needs_conversion


def code_for(produce_version: int, code: ErrorCode) -> ErrorCode:
    """The code the request version's era knows: INVALID_RECORD came with Produce 8 (KIP-467)."""
    if code is ErrorCode.INVALID_RECORD and produce_version < _FIRST_INVALID_RECORD_VERSION:
        return ErrorCode.CORRUPT_MESSAGE
    if code is ErrorCode.UNSUPPORTED_COMPRESSION_TYPE and produce_version < _FIRST_MAGIC_2_VERSION:
        return ErrorCode.CORRUPT_MESSAGE  # such clients know no later code than 2.0's
    return code


def invalid(message: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_RECORD, message)


def too_large(size: int, rules: AppendRules) -> KafkaError:
    return KafkaError(
        ErrorCode.MESSAGE_TOO_LARGE,
        f"the record batch size of {size} bytes exceeds the maximum configured value of "
        f"{rules.max_message_bytes} (max.message.bytes)",
    )


def too_many_records() -> KafkaError:
    return KafkaError(
        ErrorCode.MESSAGE_TOO_LARGE,
        f"more than {CONVERTED_RECORDS_MAX} records of one partition would have to be looked at",
    )


def _check_header(header: BatchHeader, data: memoryview, size: int, rules: AppendRules) -> None:
    """All checks of a client's record batch that need its header and checksum only."""
    if header.base_offset != 0:
        raise invalid(
            f"the baseOffset of the record batch in the append should be 0, but it is "
            f"{header.base_offset}"
        )
    if size > rules.max_message_bytes:
        raise too_large(size, rules)
    if crc32c(data[CRC_START:size]) != header.crc:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE, f"the record batch is corrupt (stored crc = {header.crc})"
        )
    count = header.records_count
    if count <= 0 or count != header.last_offset_delta + 1:
        raise invalid(
            f"inconsistent batch: count of records {count}, last offset delta "
            f"{header.last_offset_delta}"
        )
    attributes = header.attributes
    if attributes & CONTROL_MASK:
        raise invalid("clients are not allowed to write control records")
    if header.producer_id >= 0 and header.base_sequence < 0:
        raise invalid(
            f"invalid sequence number {header.base_sequence} in record batch with producerId "
            f"{header.producer_id}"
        )
    codec = attributes & CODEC_MASK
    if codec > ZSTD:
        raise KafkaError(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, f"unknown compression codec {codec}"
        )
    room = rules.decompressed_limit if codec else size - HEADER_SIZE
    if count * MIN_RECORD_SIZE > room:  # an offset gap nobody could ever read over
        raise invalid(f"a record batch of {size} bytes cannot hold {count} records")
    if attributes & TIMESTAMP_TYPE_MASK:
        raise KafkaError(
            ErrorCode.INVALID_TIMESTAMP,
            "producers should not set the timestamp type to LogAppendTime",
        )


def _validate_records(
    data: memoryview, header: BatchHeader, rules: AppendRules, now_ms: int
) -> tuple[BatchHeader, memoryview] | None:
    """Go on from a header that passed; None when the records need work off the event loop."""
    if rules.must_look_at_records(header, now_ms):
        if (
            header.attributes & CODEC_MASK
            or rules.codec
            or header.records_count > INLINE_WALK_RECORDS
            or len(data) > INLINE_WALK_BYTES
        ):
            return None
        facts = check_records(bytes(data[HEADER_SIZE:]), header, rules, now_ms)
        if not facts.sequential:
            return None  # to be rebuilt with offsets 0, 1, 2…
        return settle_timestamp(data, header, facts.max_timestamp, rules, now_ms)
    return settle_timestamp(data, header, header.max_timestamp, rules, now_ms)


def settle_timestamp(
    data: memoryview, header: BatchHeader, max_timestamp: int, rules: AppendRules, now_ms: int
) -> tuple[BatchHeader, memoryview]:
    """Write the timestamp type and maximum the log shall keep, and the checksum if one changed."""
    if rules.timestamp_type == LOG_APPEND_TIME:
        set_log_append_time(data, 0, len(data), now_ms)
    elif max_timestamp != header.max_timestamp:
        set_max_timestamp(data, 0, len(data), max_timestamp)
    else:
        return header, data
    return read_header(data), data


def _check_version_rules(entries: list[tuple[int, int, int]], produce_version: int) -> None:
    """What Produce 3 and later may carry: exactly one record batch, of format 2."""
    if produce_version < _FIRST_MAGIC_2_VERSION:
        return
    if not entries:
        raise invalid(
            f"produce requests with version {produce_version} must have at least one record batch"
        )
    if entries[0][2] != 2:
        raise invalid(
            f"produce requests with version {produce_version} are only allowed to contain record "
            "batches with magic version 2"
        )
    if len(entries) > 1:
        raise invalid(
            f"produce requests with version {produce_version} are only allowed to contain "
            "exactly one record batch"
        )


def _check_zstd(header: BatchHeader, produce_version: int) -> None:
    if (
        header.attributes & CODEC_MASK == ZSTD
        and _FIRST_MAGIC_2_VERSION <= produce_version < _FIRST_ZSTD_VERSION
    ):
        raise KafkaError(
            ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
            f"produce requests with version {produce_version} are not allowed to use ZStandard "
            "compression",
        )


def _validate_several(
    data: memoryview, rules: AppendRules, now_ms: int, produce_version: int
) -> ValidatedAppend:
    """Anything but exactly one whole record batch: old clients, cut tails, nonsense."""
    entries = list(islice(iter_batches(data), CONVERTED_RECORDS_MAX + 1))
    if len(entries) > CONVERTED_RECORDS_MAX:
        raise too_many_records()
    _check_version_rules(entries, produce_version)
    checked: list[tuple[BatchHeader, memoryview]] = []
    for pos, size, magic in entries:
        if magic == 2:
            view = data[pos : pos + size]
            header = read_header(view)
            _check_zstd(header, produce_version)
            _check_header(header, view, size, rules)
            checked.append((header, view))
    if len(checked) < len(entries):  # message sets are checked while they are converted
        return ValidatedAppend([], needs_conversion=True)
    batches: list[tuple[BatchHeader, memoryview]] = []
    for header, view in checked:
        batch = _validate_records(view, header, rules, now_ms)
        if batch is None:
            return ValidatedAppend([], needs_conversion=True)
        batches.append(batch)
    return ValidatedAppend(batches, _reported_time(rules, now_ms))


def _reported_time(rules: AppendRules, now_ms: int) -> int:
    return now_ms if rules.timestamp_type == LOG_APPEND_TIME else NO_TIMESTAMP


def validate(
    data: memoryview, rules: AppendRules, now_ms: int, produce_version: int
) -> ValidatedAppend:
    """Check the records a client sent for one partition by Produce of ``produce_version``.

    ``data`` must be writable: on LogAppendTime topics timestamp and checksum are patched in
    place. An empty set from Produce ≤ 2 is legal and gives no batch. Raises KafkaError
    CORRUPT_MESSAGE, INVALID_RECORD (from Produce 8 on; before, it is CORRUPT_MESSAGE),
    MESSAGE_TOO_LARGE, INVALID_TIMESTAMP or UNSUPPORTED_COMPRESSION_TYPE; as
    :class:`RecordsRejected` where single records are to blame.
    """
    ordinary = rules.ordinary(data, now_ms, produce_version)
    if ordinary is not None:
        return ValidatedAppend([(ordinary, data)])
    return validate_closely(data, rules, now_ms, produce_version)


def validate_closely(
    data: memoryview, rules: AppendRules, now_ms: int, produce_version: int
) -> ValidatedAppend:
    """:meth:`AppendRules.ordinary` for everything, and with the reasons."""
    try:
        if len(data) >= HEADER_SIZE and data[MAGIC_OFFSET] == 2:
            header = read_header(data)
            if header.batch_length == len(data) - LOG_OVERHEAD:
                _check_zstd(header, produce_version)
                _check_header(header, data, len(data), rules)
                batch = _validate_records(data, header, rules, now_ms)
                if batch is None:
                    return ValidatedAppend([], needs_conversion=True)
                return ValidatedAppend([batch], _reported_time(rules, now_ms))
        return _validate_several(data, rules, now_ms, produce_version)
    except KafkaError as error:
        error.code = code_for(produce_version, error.code)
        raise


class RecordFacts(NamedTuple):
    """What a walk over a batch's records found."""

    max_timestamp: int
    sequential: bool  # offset deltas are 0, 1, 2…


class RecordChecks:
    """Collects what single records of one batch do wrong, by the rules of ``rules``."""

    __slots__ = ("_code", "_errors", "_total", "earliest", "latest", "needs_key")

    def __init__(self, rules: AppendRules, now_ms: int) -> None:
        create_time = rules.timestamp_type == CREATE_TIME
        self.needs_key = rules.compacted
        self.earliest = now_ms - rules.before_max_ms if create_time else -UNBOUNDED
        self.latest = now_ms + rules.after_max_ms if create_time else UNBOUNDED
        self._errors: list[RecordError] = []
        self._code = ErrorCode.INVALID_RECORD
        self._total = 0

    def check(self, index: int, timestamp: int, has_key: bool) -> None:
        if self.needs_key and not has_key:
            self._add(index, "compacted topic cannot accept message without key")
        elif timestamp != NO_TIMESTAMP and not self.earliest <= timestamp <= self.latest:
            self._code = ErrorCode.INVALID_TIMESTAMP
            self._add(
                index,
                f"timestamp {timestamp} is out of range; it should be within "
                f"[{self.earliest}, {self.latest}]",
            )

    def _add(self, index: int, message: str) -> None:
        self._total += 1
        if len(self._errors) < MAX_RECORD_ERRORS:
            self._errors.append(RecordError(index, message))

    def finish(self) -> None:
        """Raise RecordsRejected if any record broke a rule."""
        if self._errors:
            raise RecordsRejected(
                self._code,
                f"{self._total} of the records have been rejected; the first: "
                f"{self._errors[0].message}",
                self._errors,
            )


def check_records(
    payload: bytes, header: BatchHeader, rules: AppendRules, now_ms: int
) -> RecordFacts:
    """Walk decompressed records without building them; every structural bound is checked.

    Raises KafkaError INVALID_RECORD for bytes that do not parse, RecordsRejected for records
    that break a rule of the topic.
    """
    checks = RecordChecks(rules, now_ms)
    needs_key, earliest, latest = checks.needs_key, checks.earliest, checks.latest
    first_timestamp = header.first_timestamp
    max_timestamp = NO_TIMESTAMP
    sequential = True
    size = len(payload)
    at = 0
    try:
        for index in range(header.records_count):
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 5)
            end = at + (raw >> 1)
            if raw & 1 or end > size:
                raise invalid("a record does not fit into its batch")
            at += 1  # attributes
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 10)
            timestamp = first_timestamp + ((raw >> 1) ^ -(raw & 1))
            if not INT64_MIN <= timestamp <= INT64_MAX:
                timestamp = wrap_int64(timestamp)
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 5)
            if raw != index << 1:
                sequential = False
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 5)
            has_key = not raw & 1
            if has_key:
                at += raw >> 1
            elif raw != 1:
                raise invalid("a key has a negative size")
            raw = payload[at]
            at += 1
            if raw >= 0x80:
                raw, at = long_varint(payload, at, raw, 5)
            if not raw & 1:
                at += raw >> 1
            elif raw != 1:
                raise invalid("a value has a negative size")
            raw = payload[at]
            at += 1
            if raw:
                at = _skip_headers(payload, at, end, raw)
            if at != end:
                raise invalid("a record's length does not match its fields")
            if (needs_key and not has_key) or not earliest <= timestamp <= latest:
                checks.check(index, timestamp, has_key)
            if timestamp > max_timestamp:
                max_timestamp = timestamp
    except IndexError:
        raise invalid("a record ends too early") from None
    if at != size:
        raise invalid("bytes are left after a batch's last record")
    checks.finish()
    return RecordFacts(max_timestamp, sequential)


def _skip_headers(payload: bytes, at: int, end: int, raw: int) -> int:
    """Skip a record's headers, of which ``raw`` is the (first byte of the) count."""
    if raw >= 0x80:
        raw, at = long_varint(payload, at, raw, 5)
    if raw & 1 or raw >> 1 > (end - at) >> 1:
        raise invalid("a record cannot hold its number of headers")
    for _ in range(raw >> 1):
        raw = payload[at]
        at += 1
        if raw >= 0x80:
            raw, at = long_varint(payload, at, raw, 5)
        if raw & 1:
            raise invalid("a header has no key")
        at += raw >> 1
        raw = payload[at]
        at += 1
        if raw >= 0x80:
            raw, at = long_varint(payload, at, raw, 5)
        if not raw & 1:
            at += raw >> 1
        elif raw != 1:
            raise invalid("a header value has a negative size")
    return at
