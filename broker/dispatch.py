"""Which requests this broker answers, and how a frame finds its handler.

Reading :data:`HANDLERS` is reading the product; what a Kafka broker of the 3.9 line has and
this one has not stands in :data:`NOT_SUPPORTED` with its reason. ApiVersions is computed from
the two, so that it promises exactly what is handled.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from importlib import import_module
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from kavka.broker.output import in_memory
from kavka.broker.request import Disconnect, Pending, Raw, Request, RequestFailed
from kavka.config.limits import REQUEST_BYTES_MAX
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import ErrorCode, KafkaError, MalformedFrame
from kavka.protocol.headers import API_VERSIONS, CONTROLLED_SHUTDOWN, PRODUCE
from kavka.protocol.schema import NEWEST

if TYPE_CHECKING:
    from types import ModuleType

    from kavka.broker.connection import Connection
    from kavka.broker.context import Broker
    from kavka.broker.output import Answer
    from kavka.broker.request import Response
    from kavka.protocol.schema import Message

log = logging.getLogger("kavka.dispatch")

_HANDLER_PACKAGE: Final = "kavka.broker.handlers"
_HEADER: Final = Struct(">hhih")  # key, version, correlation id, length of the client id
_HEADER_V0_SIZE: Final = 8  # the header without client id, of one old inter-broker request
_END_TXN: Final = 26
_END_TXN_WITH_NEW_EPOCH: Final = 5


class HandlerEntry(NamedTuple):
    """One supported API: its key, its module in ``broker/handlers``, the versions it answers."""

    key: int
    module: str
    min_version: int
    max_version: int


def _table(*entries: tuple[int, str, int, int]) -> dict[int, HandlerEntry]:
    return {entry[0]: HandlerEntry(*entry) for entry in entries}


HANDLERS: Final[dict[int, HandlerEntry]] = _table(
    (0, "k00_produce", 0, 12),
    (1, "k01_fetch", 0, 17),
    (2, "k02_list_offsets", 0, 9),
    (3, "k03_metadata", 0, 12),
    (4, "k04_leader_and_isr", 0, 7),
    (5, "k05_stop_replica", 0, 4),
    (6, "k06_update_metadata", 0, 8),
    (7, "k07_controlled_shutdown", 0, 3),
    (8, "k08_offset_commit", 0, 9),
    (9, "k09_offset_fetch", 0, 9),
    (10, "k10_find_coordinator", 0, 6),
    (11, "k11_join_group", 0, 9),
    (12, "k12_heartbeat", 0, 4),
    (13, "k13_leave_group", 0, 5),
    (14, "k14_sync_group", 0, 5),
    (15, "k15_describe_groups", 0, 5),
    (16, "k16_list_groups", 0, 5),
    (17, "k17_sasl_handshake", 0, 1),
    (18, "k18_api_versions", 0, 4),
    (19, "k19_create_topics", 0, 7),
    (20, "k20_delete_topics", 0, 6),
    (21, "k21_delete_records", 0, 2),
    (22, "k22_init_producer_id", 0, 5),
    (23, "k23_offset_for_leader_epoch", 0, 4),
    (24, "k24_add_partitions_to_txn", 0, 5),
    (25, "k25_add_offsets_to_txn", 0, 4),
    (26, "k26_end_txn", 0, 5),
    (27, "k27_write_txn_markers", 0, 1),
    (28, "k28_txn_offset_commit", 0, 5),
    (29, "k29_describe_acls", 0, 3),
    (30, "k30_create_acls", 0, 3),
    (31, "k31_delete_acls", 0, 3),
    (32, "k32_describe_configs", 0, 4),
    (33, "k33_alter_configs", 0, 2),
    (34, "k34_alter_replica_log_dirs", 0, 2),
    (35, "k35_describe_log_dirs", 0, 4),
    (36, "k36_sasl_authenticate", 0, 2),
    (37, "k37_create_partitions", 0, 3),
    (38, "k38_create_delegation_token", 0, 3),
    (39, "k39_renew_delegation_token", 0, 2),
    (40, "k40_expire_delegation_token", 0, 2),
    (41, "k41_describe_delegation_token", 0, 3),
    (42, "k42_delete_groups", 0, 2),
    (43, "k43_elect_leaders", 0, 2),
    (44, "k44_incremental_alter_configs", 0, 1),
    (45, "k45_alter_partition_reassignments", 0, 0),
    (46, "k46_list_partition_reassignments", 0, 0),
    (47, "k47_offset_delete", 0, 0),
    (48, "k48_describe_client_quotas", 0, 1),
    (49, "k49_alter_client_quotas", 0, 1),
    (50, "k50_describe_user_scram_credentials", 0, 0),
    (51, "k51_alter_user_scram_credentials", 0, 0),
    (60, "k60_describe_cluster", 0, 1),
    (61, "k61_describe_producers", 0, 0),
    (65, "k65_describe_transactions", 0, 0),
    (66, "k66_list_transactions", 0, 1),
    (68, "k68_consumer_group_heartbeat", 0, 1),
    (69, "k69_consumer_group_describe", 0, 0),
)

_KRAFT: Final = "KRaft only; metadata lives in ZooKeeper or the embedded store"
_FORWARDING: Final = "broker-to-controller forwarding; replicas write to the store themselves"

NOT_SUPPORTED: Final[dict[int, str]] = {
    52: _KRAFT,
    53: _KRAFT,
    54: _KRAFT,
    55: _KRAFT,
    56: _FORWARDING,
    57: "feature flags: none are offered, clients then use the classic protocols",
    58: _FORWARDING,
    59: _KRAFT,
    62: _KRAFT,
    63: _KRAFT,
    64: _KRAFT,
    67: _FORWARDING,
    70: _KRAFT,
    71: "client telemetry (KIP-714) needs a receiver plug-in and a KRaft broker",
    72: "client telemetry (KIP-714) needs a receiver plug-in and a KRaft broker",
    73: _KRAFT,
    74: "client metrics subscriptions need a KRaft broker",
    75: "needs a KRaft broker; clients fall back to Metadata",
    **dict.fromkeys(range(76, 80), "share groups (KIP-932) need a KRaft broker"),
    **dict.fromkeys(range(80, 83), _KRAFT),
    **dict.fromkeys(range(83, 88), "share groups (KIP-932) need a KRaft broker"),
    **dict.fromkeys(range(88, 90), "streams groups (KIP-1071) need a KRaft broker"),
    **dict.fromkeys(range(90, 93), "share groups (KIP-932) need a KRaft broker"),
}

COMPATIBILITY: Final = {
    "latest": keys.LATEST,
    "2.3.0": keys.RANGES_2_3,
    "1.1.0": keys.RANGES_1_1,
}
"""The values of the setting ``compatibility`` and the version table that each caps to."""


def _reason(key: int) -> str:
    reason = NOT_SUPPORTED.get(key)
    return f" ({reason})" if reason else ""


def offered_versions(compatibility: str) -> dict[int, tuple[int, int]]:
    """Key → lowest and highest version answered, in ascending order of keys."""
    ceiling = COMPATIBILITY[compatibility]
    offered = {}
    for key, entry in sorted(HANDLERS.items()):
        if key in ceiling:
            low, high = ceiling[key]
            low, high = max(low, entry.min_version), min(high, entry.max_version)
            if low <= high:
                offered[key] = (low, high)
    return offered


def features(compatibility: str, leaders_can_add: bool) -> dict[str, int]:
    """The feature levels that clients are told of (KIP-584).

    Level 2 of ``transaction.version``, by which clients let leaders add partitions to their
    transactions and get a new epoch with each end (KIP-890), only if leaders can do that.
    """
    highest = offered_versions(compatibility)[_END_TXN][1]
    if highest >= _END_TXN_WITH_NEW_EPOCH and leaders_can_add:
        return {"transaction.version": 2}
    return {}


class Route:
    """The way to one handler; its module is imported when the first request needs it."""

    __slots__ = (
        "_module",
        "error_response",
        "flexible_since",
        "handle",
        "handle_raw",
        "is_coroutine",
        "key",
        "loaded",
        "max_version",
        "min_version",
        "name",
        "request_class",
    )

    request_class: "type[Message]"

    def __init__(self, entry: HandlerEntry, min_version: int, max_version: int) -> None:
        self.key = entry.key
        self.min_version = min_version
        self.max_version = max_version
        self.name = keys.api_name(entry.key)
        self.flexible_since = keys.FLEXIBLE_SINCE.get(entry.key, NEWEST + 1)
        self.loaded = False
        self.handle_raw: Callable[[Broker, Request], Response | Pending] | None = None
        self.handle: Callable[[Broker, Request, Any], Any] | None = None
        self.is_coroutine = False
        self.error_response: Callable[[ErrorCode, Any], Message] | None = None
        self._module = f"{_HANDLER_PACKAGE}.{entry.module}"

    def load(self) -> None:
        """Import the handler module and see which kind of handler it has."""
        module: ModuleType = import_module(self._module)
        self.request_class = keys.message_classes(self.key)[0]
        self.handle_raw = getattr(module, "handle_raw", None)
        self.handle = getattr(module, "handle", None)
        assert self.handle_raw or self.handle, f"{self._module} has no handler"
        self.is_coroutine = self.handle_raw is None and asyncio.iscoroutinefunction(self.handle)
        self.error_response = getattr(module, "error_response", None)
        self.loaded = True


class Dispatcher:
    """Finds the handler of a frame and turns what it returns into bytes: the ``hub.Service``."""

    def __init__(self, broker: "Broker", compatibility: str = "latest") -> None:
        self._broker = broker
        self._routes = {
            key: Route(HANDLERS[key], low, high)
            for key, (low, high) in offered_versions(compatibility).items()
        }
        self._tasks: set[asyncio.Task[None]] = set()

    def serve(self, connection: "Connection", frame: memoryview) -> "Answer | Pending":
        """Handle one request frame; see ``hub.Service``."""
        size = len(frame)
        if size < _HEADER.size:
            raise MalformedFrame(f"a request of {size} bytes has no whole header")
        key, version, correlation_id, length = _HEADER.unpack_from(frame)
        route = self._routes.get(key)
        if route is None:
            raise MalformedFrame(f"unknown API key {key}{_reason(key)}")
        if not route.min_version <= version <= route.max_version:
            if key == API_VERSIONS:
                return self._unsupported_api_versions(correlation_id)
            raise MalformedFrame(
                f"{route.name} version {version} is not supported, "
                f"{route.min_version} to {route.max_version} are"
            )
        if size > REQUEST_BYTES_MAX and key != PRODUCE:
            raise MalformedFrame(
                f"a {route.name} request of {size} bytes exceeds {REQUEST_BYTES_MAX}"
            )
        at = _HEADER.size
        if key == CONTROLLED_SHUTDOWN and version == 0:
            at = _HEADER_V0_SIZE
        else:
            if length > 0:
                at += length
                client_id = frame[_HEADER.size : at].tobytes()
                if client_id != connection.client_id_bytes:
                    connection.set_client_id(client_id)
            elif length < -1:
                raise MalformedFrame(f"a client id of {length} bytes")
            elif connection.client_id_bytes:
                connection.set_client_id(b"")
            if version >= route.flexible_since:
                if at < size and not frame[at]:
                    at += 1  # no tagged fields, as ever
                else:
                    at = headers.parse_request_header(frame, 0)[1]
            if at > size:
                raise MalformedFrame("the client id is longer than the request")
        body = frame[at:]
        request = Request(key, version, correlation_id, connection.client_id, body, connection)
        quotas = self._broker.quotas
        if quotas is not None:
            quotas.arrived(request, size)
        try:
            if not route.loaded:
                route.load()
            if route.handle_raw is not None:
                response = route.handle_raw(self._broker, request)
            else:
                response = self._call(route, request)
            if response.__class__ is Pending:
                response.request = request
                if quotas is not None:
                    quotas.parked(request)
                return response
            return self._encode(request, cast("Response", response))
        except Exception as error:
            return self._explain(route, request, error)

    def encode(self, pending: Pending) -> "Answer":
        """The answer of a completed :class:`Pending`; see ``hub.Service``."""
        request = pending.request
        assert request is not None
        route = self._routes[request.key]
        try:
            if pending.error is not None:
                raise pending.error
            return self._encode(request, pending.response)
        except Exception as error:
            return self._explain(route, request, error)

    async def drain(self, timeout: float) -> None:
        """Give coroutine handlers ``timeout`` seconds to end, then cancel them."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    def _call(self, route: Route, request: Request) -> "Response | Pending":
        request.message = body = codec.decode(route.request_class, request.body, request.version)
        assert route.handle is not None
        result = route.handle(self._broker, request, body)
        if not route.is_coroutine:
            return cast("Response | Pending", result)
        pending = Pending(exclusive=True)
        task = self._broker.loop.create_task(_run(route.name, result, pending))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return pending

    def _encode(self, request: Request, response: "Response") -> "Answer":
        if self._broker.quotas is not None:
            response = self._broker.quotas.answered(request, response)
        key, version, correlation_id = request.key, request.version, request.correlation_id
        if response.__class__ is bytes:
            return headers.response_prefix(key, version, correlation_id, len(response)) + response
        if response.__class__ is Raw:
            parts = response.parts
            size = sum(len(part) if in_memory(part) else part.size for part in parts)
            return [headers.response_prefix(key, version, correlation_id, size), *parts]
        if response is None:
            return None
        return headers.encode_response(correlation_id, cast("Message", response), version)

    def _explain(self, route: Route, request: Request, error: Exception) -> "Answer":
        """Answer a failed request if its API has a place for the error code; raise otherwise."""
        if isinstance(error, KafkaError) and route.error_response and request.message is not None:
            response = route.error_response(error.code, request.message)
            return self._encode(request, response)
        name = f"{route.name} v{request.version}"
        if isinstance(error, MalformedFrame | Disconnect):
            raise type(error)(f"{name}: {error}") from error
        raise RequestFailed(f"{name} failed") from error

    def _unsupported_api_versions(self, correlation_id: int) -> bytes:
        """Whatever version was asked for, every client understands version 0 (KIP-511)."""
        from kavka.broker.handlers.k18_api_versions import unsupported_version

        route = self._routes[API_VERSIONS]
        response = unsupported_version(route.min_version, route.max_version)
        return headers.encode_response(correlation_id, response, 0)


async def _run(name: str, handling: "Coroutine[Any, Any, Response]", pending: Pending) -> None:
    """Drive a coroutine handler to its end and hand its result to the connection."""
    try:
        response = await handling
    except asyncio.CancelledError:
        pending.fail(Disconnect("the broker is stopping"))
        raise
    except Exception as error:
        if pending.cancelled and not isinstance(error, KafkaError | Disconnect):
            log.error("request failed after its client had gone api=%s", name, exc_info=error)
        pending.fail(error)
    else:
        pending.complete(response)
