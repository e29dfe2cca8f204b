"""Which requests this broker answers, and how a frame finds its handler.

Reading :data:`HANDLERS` is reading the product; what a Kafka broker of the 3.9 line has and
this one has not stands in :data:`NOT_SUPPORTED` with its reason. ApiVersions is computed from
the two, so that it promises exactly what is handled.
"""

from collections.abc import Iterable
from importlib import import_module
from struct import Struct
from struct import error as StructError
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from kavka.broker.request import Disconnect, Pending, Raw, Request
from kavka.protocol import codec, headers, keys
from kavka.protocol.errors import KafkaError, MalformedFrame

if TYPE_CHECKING:
    from kavka.broker.connection import Connection
    from kavka.broker.context import Broker
    from kavka.broker.request import Part, Response


class HandlerEntry(NamedTuple):
    """One supported API: its key, its module in ``broker/handlers``, the versions it answers."""

    key: int
    module: str
    min_version: int
    max_version: int


def _table(*entries: tuple[int, str, int, int]) -> dict[int, HandlerEntry]:
    return {entry[0]: HandlerEntry(*entry) for entry in entries}


HANDLERS: Final[dict[int, HandlerEntry]] = _table(
    (0, "k00_produce", 0, 11),
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
    (60, "k60_describe_cluster", 0, 1),
    (61, "k61_describe_producers", 0, 0),
)

_SECOND_WAVE: Final = "second wave: the transaction coordinator"
_KRAFT: Final = "KRaft only; metadata lives in ZooKeeper or the embedded store"
_FORWARDING: Final = "broker-to-controller forwarding; replicas write to the store themselves"

NOT_SUPPORTED: Final[dict[int, str]] = {
    24: _SECOND_WAVE,
    25: _SECOND_WAVE,
    26: _SECOND_WAVE,
    27: _SECOND_WAVE,
    28: _SECOND_WAVE,
    48: "client quotas come with the security wave; their keys are not in the 2.3 table",
    49: "client quotas come with the security wave; their keys are not in the 2.3 table",
    50: "SCRAM users come with the security wave; their keys are not in the 2.3 table",
    51: "SCRAM users come with the security wave; their keys are not in the 2.3 table",
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
    65: _SECOND_WAVE,
    66: _SECOND_WAVE,
    67: _FORWARDING,
    68: "the consumer protocol of KIP-848 needs a KRaft broker; clients use the classic one",
    69: "the consumer protocol of KIP-848 needs a KRaft broker; clients use the classic one",
    70: _KRAFT,
    71: "client telemetry (KIP-714) needs a receiver plug-in and a KRaft broker",
    72: "client telemetry (KIP-714) needs a receiver plug-in and a KRaft broker",
    73: _KRAFT,
    74: "client metrics subscriptions need a KRaft broker",
    75: "needs a KRaft broker; clients fall back to Metadata",
}

COMPATIBILITY: Final = {
    "latest": keys.LATEST,
    "2.3.0": keys.RANGES_2_3,
    "1.1.0": keys.RANGES_1_1,
}
"""The values of the setting ``compatibility`` and the version table that each caps to."""


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
