"""The API keys, the versions that Kafka's releases offer of each, and the classes behind a key."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, NamedTuple, TypeAlias

from kavka.protocol.schema import Message

VersionRange: TypeAlias = tuple[int, int]


class Api(NamedTuple):
    """One API and the versions a broker of a release answers in ApiVersions, None where absent.

    ``flexible_since`` is the first version with compact lengths, tagged fields and the headers
    that go with them. The column of 3.9 leaves out unstable versions; keys that only a KRaft
    cluster serves are in it.
    """

    key: int
    name: str
    flexible_since: int | None
    in_1_1: VersionRange | None
    in_2_3: VersionRange | None
    in_3_9: VersionRange | None


APIS: Final[Mapping[int, Api]] = {
    api.key: api
    for api in (
        Api(0, "Produce", 9, (0, 5), (0, 7), (0, 11)),
        Api(1, "Fetch", 12, (0, 7), (0, 11), (0, 17)),
        Api(2, "ListOffsets", 6, (0, 2), (0, 5), (0, 9)),
        Api(3, "Metadata", 9, (0, 5), (0, 8), (0, 12)),
        Api(4, "LeaderAndIsr", 4, (0, 1), (0, 2), (0, 7)),
        Api(5, "StopReplica", 2, (0, 0), (0, 1), (0, 4)),
        Api(6, "UpdateMetadata", 6, (0, 4), (0, 5), (0, 8)),
        Api(7, "ControlledShutdown", 3, (0, 1), (0, 2), (0, 3)),
        Api(8, "OffsetCommit", 8, (0, 3), (0, 7), (0, 9)),
        Api(9, "OffsetFetch", 6, (0, 3), (0, 5), (0, 9)),
        Api(10, "FindCoordinator", 3, (0, 1), (0, 2), (0, 6)),
        Api(11, "JoinGroup", 6, (0, 2), (0, 5), (0, 9)),
        Api(12, "Heartbeat", 4, (0, 1), (0, 3), (0, 4)),
        Api(13, "LeaveGroup", 4, (0, 1), (0, 2), (0, 5)),
        Api(14, "SyncGroup", 4, (0, 1), (0, 3), (0, 5)),
        Api(15, "DescribeGroups", 5, (0, 1), (0, 3), (0, 5)),
        Api(16, "ListGroups", 3, (0, 1), (0, 2), (0, 5)),
        Api(17, "SaslHandshake", None, (0, 1), (0, 1), (0, 1)),
        Api(18, "ApiVersions", 3, (0, 1), (0, 2), (0, 4)),
        Api(19, "CreateTopics", 5, (0, 2), (0, 3), (0, 7)),
        Api(20, "DeleteTopics", 4, (0, 1), (0, 3), (0, 6)),
        Api(21, "DeleteRecords", 2, (0, 0), (0, 1), (0, 2)),
        Api(22, "InitProducerId", 2, (0, 0), (0, 1), (0, 5)),
        Api(23, "OffsetForLeaderEpoch", 4, (0, 0), (0, 3), (0, 4)),
        Api(24, "AddPartitionsToTxn", 3, (0, 0), (0, 1), (0, 5)),
        Api(25, "AddOffsetsToTxn", 3, (0, 0), (0, 1), (0, 4)),
        Api(26, "EndTxn", 3, (0, 0), (0, 1), (0, 4)),
        Api(27, "WriteTxnMarkers", 1, (0, 0), (0, 0), (0, 1)),
        Api(28, "TxnOffsetCommit", 3, (0, 0), (0, 2), (0, 4)),
        Api(29, "DescribeAcls", 2, (0, 0), (0, 1), (0, 3)),
        Api(30, "CreateAcls", 2, (0, 0), (0, 1), (0, 3)),
        Api(31, "DeleteAcls", 2, (0, 0), (0, 1), (0, 3)),
        Api(32, "DescribeConfigs", 4, (0, 1), (0, 2), (0, 4)),
        Api(33, "AlterConfigs", 2, (0, 0), (0, 1), (0, 2)),
        Api(34, "AlterReplicaLogDirs", 2, (0, 0), (0, 1), (0, 2)),
        Api(35, "DescribeLogDirs", 2, (0, 0), (0, 1), (0, 4)),
        Api(36, "SaslAuthenticate", 2, (0, 0), (0, 1), (0, 2)),
        Api(37, "CreatePartitions", 2, (0, 0), (0, 1), (0, 3)),
        Api(38, "CreateDelegationToken", 2, (0, 0), (0, 1), (0, 3)),
        Api(39, "RenewDelegationToken", 2, (0, 0), (0, 1), (0, 2)),
        Api(40, "ExpireDelegationToken", 2, (0, 0), (0, 1), (0, 2)),
        Api(41, "DescribeDelegationToken", 2, (0, 0), (0, 1), (0, 3)),
        Api(42, "DeleteGroups", 2, (0, 0), (0, 1), (0, 2)),
        Api(43, "ElectLeaders", 2, None, (0, 0), (0, 2)),
        Api(44, "IncrementalAlterConfigs", 1, None, (0, 0), (0, 1)),
        Api(45, "AlterPartitionReassignments", 0, None, None, (0, 0)),
        Api(46, "ListPartitionReassignments", 0, None, None, (0, 0)),
        Api(47, "OffsetDelete", None, None, None, (0, 0)),
        Api(48, "DescribeClientQuotas", 1, None, None, (0, 1)),
        Api(49, "AlterClientQuotas", 1, None, None, (0, 1)),
        Api(50, "DescribeUserScramCredentials", 0, None, None, (0, 0)),
        Api(51, "AlterUserScramCredentials", 0, None, None, (0, 0)),
        Api(52, "Vote", 0, None, None, (0, 1)),
        Api(53, "BeginQuorumEpoch", 1, None, None, (0, 1)),
        Api(54, "EndQuorumEpoch", 1, None, None, (0, 1)),
        Api(55, "DescribeQuorum", 0, None, None, (0, 2)),
        Api(56, "AlterPartition", 0, None, None, (0, 3)),
        Api(57, "UpdateFeatures", 0, None, None, (0, 1)),
        Api(58, "Envelope", 0, None, None, (0, 0)),
        Api(59, "FetchSnapshot", 0, None, None, (0, 1)),
        Api(60, "DescribeCluster", 0, None, None, (0, 1)),
        Api(61, "DescribeProducers", 0, None, None, (0, 0)),
        Api(62, "BrokerRegistration", 0, None, None, (0, 4)),
        Api(63, "BrokerHeartbeat", 0, None, None, (0, 1)),
        Api(64, "UnregisterBroker", 0, None, None, (0, 0)),
        Api(65, "DescribeTransactions", 0, None, None, (0, 0)),
        Api(66, "ListTransactions", 0, None, None, (0, 1)),
        Api(67, "AllocateProducerIds", 0, None, None, (0, 0)),
        Api(68, "ConsumerGroupHeartbeat", 0, None, None, (0, 0)),
        Api(69, "ConsumerGroupDescribe", 0, None, None, (0, 0)),
        Api(70, "ControllerRegistration", 0, None, None, (0, 0)),
        Api(71, "GetTelemetrySubscriptions", 0, None, None, (0, 0)),
        Api(72, "PushTelemetry", 0, None, None, (0, 0)),
        Api(73, "AssignReplicasToDirs", 0, None, None, (0, 0)),
        Api(74, "ListConfigResources", 0, None, None, (0, 0)),
        Api(75, "DescribeTopicPartitions", 0, None, None, (0, 0)),
        Api(76, "ShareGroupHeartbeat", 0, None, None, None),
        Api(77, "ShareGroupDescribe", 0, None, None, None),
        Api(78, "ShareFetch", 0, None, None, None),
        Api(79, "ShareAcknowledge", 0, None, None, None),
        Api(80, "AddRaftVoter", 0, None, None, (0, 0)),
        Api(81, "RemoveRaftVoter", 0, None, None, (0, 0)),
        Api(82, "UpdateRaftVoter", 0, None, None, (0, 0)),
        Api(83, "InitializeShareGroupState", 0, None, None, None),
        Api(84, "ReadShareGroupState", 0, None, None, None),
        Api(85, "WriteShareGroupState", 0, None, None, None),
        Api(86, "DeleteShareGroupState", 0, None, None, None),
        Api(87, "ReadShareGroupStateSummary", 0, None, None, None),
        Api(88, "StreamsGroupHeartbeat", 0, None, None, None),
        Api(89, "StreamsGroupDescribe", 0, None, None, None),
        Api(90, "DescribeShareGroupOffsets", 0, None, None, None),
        Api(91, "AlterShareGroupOffsets", 0, None, None, None),
        Api(92, "DeleteShareGroupOffsets", 0, None, None, None),
    )
}

RANGES_1_1: Final[Mapping[int, VersionRange]] = {
    api.key: api.in_1_1 for api in APIS.values() if api.in_1_1
}
RANGES_2_3: Final[Mapping[int, VersionRange]] = {
    api.key: api.in_2_3 for api in APIS.values() if api.in_2_3
}
OF_4: Final[Mapping[int, VersionRange]] = {
    0: (0, 12),  # this and the next two: the second transaction protocol of KIP-890
    26: (0, 5),
    28: (0, 5),
    68: (0, 1),  # librdkafka speaks the consumer protocol only with this one
}
"""Versions that Kafka 4.0 has brought and this broker answers."""

LATEST: Final[Mapping[int, VersionRange]] = {
    **{api.key: api.in_3_9 for api in APIS.values() if api.in_3_9},
    **OF_4,
}
FLEXIBLE_SINCE: Final[Mapping[int, int]] = {
    api.key: api.flexible_since for api in APIS.values() if api.flexible_since is not None
}


def api_name(key: int) -> str:
    """Kafka's name of an API key, for log lines; unknown keys are shown as such."""
    api = APIS.get(key)
    return api.name if api else f"unknown({key})"


def module_name(key: int) -> str:
    """``k01_fetch`` for 1: the name of the modules with the messages and the handler of a key."""
    name = APIS[key].name
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return f"k{key:02}{words}"


def message_classes(key: int) -> tuple[type[Message], type[Message]]:
    """The request and the response class of a key; their module is imported now.

    KeyError for a key without declared messages (KRaft, share and streams groups).
    """
    name = APIS[key].name
    path = f"kavka.protocol.messages.{module_name(key)}"
    try:
        module = import_module(path)
    except ModuleNotFoundError as error:
        if error.name != path:
            raise
        raise KeyError(key) from error
    request, response = getattr(module, f"{name}Request"), getattr(module, f"{name}Response")
    return request, response
