"""The broker's settings but for TLS and SASL: Kafka 2.3's table with the product's defaults.

A row: name, type, default, valid values, importance, how it changes while the broker runs, and
what it is for. Defaults that differ from Kafka's stand in the manual of the product: 3
partitions, 72 hours, 10 MiB messages, 200 connections an address.
"""

from typing import Final, TypeAlias

from kavka.config.option import (
    AT_LEAST_0,
    AT_LEAST_1,
    CLEANUP_POLICIES,
    COMPRESSION_TYPES,
    DOUBLE_MAX,
    INT_MAX,
    KAFKA_VERSION,
    LONG_MAX,
    TIMESTAMP_TYPES,
    ConfigType,
    Dynamic,
    Importance,
    ListOf,
    OneOf,
    Option,
    Pattern,
    Range,
    Validator,
    Value,
)

_Row: TypeAlias = tuple[str, ConfigType, Value, Validator | None, Importance, Dynamic, str]

BOOLEAN: Final = ConfigType.BOOLEAN
STRING: Final = ConfigType.STRING
INT: Final = ConfigType.INT
SHORT: Final = ConfigType.SHORT
LONG: Final = ConfigType.LONG
DOUBLE: Final = ConfigType.DOUBLE
LIST: Final = ConfigType.LIST
CLASS: Final = ConfigType.CLASS
PASSWORD: Final = ConfigType.PASSWORD
HIGH: Final = Importance.HIGH
MEDIUM: Final = Importance.MEDIUM
LOW: Final = Importance.LOW
FIXED: Final = Dynamic.READ_ONLY
BROKER: Final = Dynamic.PER_BROKER
CLUSTER: Final = Dynamic.CLUSTER_WIDE

NO_JAVA_CLASS: Final = Pattern(
    "", "empty", "this broker cannot load Java classes, leave {name} unset"
)
AUTHORIZERS: Final = Pattern(
    r"|kafka\.security\.auth\.SimpleAclAuthorizer|kafka\.security\.authorizer\.AclAuthorizer"
    r"|org\.apache\.kafka\.metadata\.authorizer\.StandardAuthorizer",
    "empty, or the name of an authorizer of Kafka's own",
    "this broker cannot load Java classes, but enforces ACLs as Kafka's own authorizer does: set "
    "{name} to kafka.security.authorizer.AclAuthorizer, or leave it unset",
)
PRINCIPALS: Final = Pattern(
    r"\s*([^:;]+:[^;]+(;\s*[^:;]+:[^;]+)*(;\s*)*)?",
    "principals such as User:alice, separated by semicolons",
    "principals are written as User:alice and separated by semicolons",
)
LOG_LEVELS: Final = OneOf("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
COMPATIBILITY_LEVELS: Final = OneOf("latest", "2.3.0", "1.1.0")
CAPACITY_POLICIES: Final = OneOf("produce_reject", "time_base")
PROFILES: Final = OneOf("default", "managed", "strict")
INSTANCE_FLAVOURS: Final = OneOf("none", "100", "300", "600", "1200")
CODEC_IDS: Final = Range(0, 4)
REPLICA_SELECTORS: Final = OneOf(
    "org.apache.kafka.common.replica.LeaderSelector",
    "org.apache.kafka.common.replica.RackAwareReplicaSelector",
)

# fmt: off
_ROWS: Final[tuple[_Row, ...]] = (
    # Who this broker is
    ("broker.id", INT, -1, Range(-1), HIGH, FIXED,
     "Id of this broker in its cluster; -1 lets it find one: 1 without ZooKeeper, else a number "
     "above reserved.broker.max.id."),
    ("broker.id.generation.enable", BOOLEAN, True, None, MEDIUM, FIXED,
     "Whether a broker without an id may be given one by ZooKeeper."),
    ("reserved.broker.max.id", INT, 1000, AT_LEAST_0, MEDIUM, FIXED,
     "Largest id that people give by hand; generated ids start above it."),
    ("broker.rack", STRING, None, None, MEDIUM, FIXED,
     "Rack of this broker; replicas of one partition are spread over racks."),

    # Listeners and sockets
    ("listeners", STRING, None, None, HIGH, BROKER,
     "Addresses to listen on, NAME://host:port separated by commas; an empty host is every "
     "interface, port 0 a free port. Default: PLAINTEXT on host.name and port."),
    ("advertised.listeners", STRING, None, None, HIGH, BROKER,
     "Addresses that clients are told to connect to, when they differ from listeners."),
    ("listener.security.protocol.map", STRING,
     "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL", None, LOW,
     BROKER, "Security protocol of every listener name, as NAME:PROTOCOL."),
    ("inter.broker.listener.name", STRING, None, None, MEDIUM, FIXED,
     "Listener on which brokers talk to each other; excludes security.inter.broker.protocol."),
    ("security.inter.broker.protocol", STRING, "PLAINTEXT",
     OneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"), MEDIUM, FIXED,
     "Security protocol between brokers; excludes inter.broker.listener.name."),
    ("control.plane.listener.name", STRING, None, None, HIGH, FIXED,
     "Listener kept for the controller's requests; unset means none of its own."),
    ("host.name", STRING, "127.0.0.1", None, HIGH, FIXED,
     "Address to listen on when listeners is not set; empty is every interface."),
    ("port", INT, 9092, Range(0, 65535), HIGH, FIXED,
     "Port to listen on when listeners is not set."),
    ("advertised.host.name", STRING, None, None, HIGH, FIXED,
     "Host name told to clients when neither listeners nor advertised.listeners is set."),
    ("advertised.port", INT, None, None, HIGH, FIXED,
     "Port told to clients when neither listeners nor advertised.listeners is set."),
    ("socket.send.buffer.bytes", INT, 102400, Range(-1), HIGH, FIXED,
     "SO_SNDBUF of accepted connections; -1 keeps the system's."),
    ("socket.receive.buffer.bytes", INT, 102400, Range(-1), HIGH, FIXED,
     "SO_RCVBUF of accepted connections; -1 keeps the system's."),
    ("socket.request.max.bytes", INT, 104857600, AT_LEAST_1, HIGH, FIXED,
     "Largest request; a connection that announces a larger one is closed."),
    ("max.connections", INT, INT_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "Most connections to this broker; the next one waits until one is closed."),
    ("max.connections.per.ip", INT, 200, AT_LEAST_0, MEDIUM, CLUSTER,
     "Most connections from one address; the next one is closed at once."),
    ("max.connections.per.ip.overrides", STRING, "", None, MEDIUM, CLUSTER,
     "Other limits for some addresses, as host:count separated by commas."),
    ("max.connection.creation.rate", INT, INT_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "Connections that clients may make a second; faster ones wait."),
    ("connections.max.idle.ms", LONG, 600000, None, MEDIUM, FIXED,
     "A connection without traffic for so long is closed."),
    ("connection.failed.authentication.delay.ms", INT, 100, AT_LEAST_0, LOW, FIXED,
     "How long a connection that failed to authenticate stays open before it is closed."),
    ("queued.max.requests", INT, 500, AT_LEAST_1, HIGH, FIXED,
     "Requests that may wait at the same time before no more are read."),
    ("queued.max.request.bytes", LONG, -1, None, MEDIUM, FIXED,
     "Bytes of requests that may wait before no more are read; -1 is no limit."),
    ("request.timeout.ms", INT, 30000, None, HIGH, FIXED,
     "How long a request to another broker may take."),
    ("max.incremental.fetch.session.cache.slots", INT, 1000, AT_LEAST_0, MEDIUM, FIXED,
     "Fetch sessions kept at the same time (KIP-227)."),

    # Topics
    ("auto.create.topics.enable", BOOLEAN, True, None, HIGH, CLUSTER,
     "Whether asking for an unknown topic creates it."),
    ("delete.topic.enable", BOOLEAN, True, None, HIGH, FIXED,
     "Whether topics can be deleted."),
    ("num.partitions", INT, 3, AT_LEAST_1, MEDIUM, FIXED,
     "Partitions of a topic that does not say how many."),
    ("default.replication.factor", INT, 3, None, MEDIUM, FIXED,
     "Replicas of a topic that does not say how many; 1 without ZooKeeper."),
    ("min.insync.replicas", INT, 1, AT_LEAST_1, HIGH, CLUSTER,
     "Replicas, the leader among them, that must have a write of acks=all before it counts."),
    ("unclean.leader.election.enable", BOOLEAN, False, None, HIGH, CLUSTER,
     "Whether a replica that lacks acknowledged records may lead when no other is alive."),
    ("message.max.bytes", INT, 10485760, AT_LEAST_0, HIGH, CLUSTER,
     "Largest record batch that is accepted."),
    ("compression.type", STRING, "producer", COMPRESSION_TYPES, HIGH, CLUSTER,
     "Codec batches are stored with; producer keeps the sender's."),

    # Logs
    ("log.dir", STRING, "./kavka-data", None, HIGH, FIXED,
     "Data directory when log.dirs is not set."),
    ("log.dirs", STRING, None, None, HIGH, FIXED,
     "Data directories separated by commas; the first also holds the embedded metadata store."),
    ("log.segment.bytes", INT, 1073741824, Range(14), HIGH, CLUSTER,
     "Size at which a new segment file is begun."),
    ("log.roll.ms", LONG, None, None, HIGH, CLUSTER,
     "Age at which a new segment is begun; unset: log.roll.hours."),
    ("log.roll.hours", INT, 168, AT_LEAST_1, HIGH, FIXED,
     "Age at which a new segment is begun, in hours."),
    ("log.roll.jitter.ms", LONG, None, None, HIGH, CLUSTER,
     "Largest random time taken off log.roll.ms; unset: log.roll.jitter.hours."),
    ("log.roll.jitter.hours", INT, 0, AT_LEAST_0, HIGH, FIXED,
     "Largest random time taken off the roll age, in hours."),
    ("log.retention.ms", LONG, None, None, HIGH, CLUSTER,
     "How long records are kept; -1 for ever; unset: log.retention.minutes."),
    ("log.retention.minutes", INT, None, None, HIGH, FIXED,
     "How long records are kept, in minutes; unset: log.retention.hours."),
    ("log.retention.hours", INT, 72, None, HIGH, FIXED,
     "How long records are kept, in hours."),
    ("log.retention.bytes", LONG, -1, None, HIGH, CLUSTER,
     "Size of a partition above which its oldest segments are deleted; -1 is no limit."),
    ("log.retention.check.interval.ms", LONG, 300000, AT_LEAST_1, MEDIUM, FIXED,
     "How often segments are looked over for deletion."),
    ("log.segment.delete.delay.ms", LONG, 60000, AT_LEAST_0, HIGH, CLUSTER,
     "How long a deleted file stays on disk, for readers that are at it."),
    ("log.cleanup.policy", LIST, ("delete",), CLEANUP_POLICIES, MEDIUM, CLUSTER,
     "What happens to old segments: delete, compact, or both."),
    ("log.flush.interval.messages", LONG, LONG_MAX, AT_LEAST_1, HIGH, CLUSTER,
     "Records after which a partition is flushed to disk; 1 acknowledges only what is on disk."),
    ("log.flush.interval.ms", LONG, None, None, HIGH, CLUSTER,
     "Longest time a record stays unflushed; unset: log.flush.scheduler.interval.ms."),
    ("log.flush.scheduler.interval.ms", LONG, LONG_MAX, None, HIGH, FIXED,
     "How often partitions are looked over for a flush that is due."),
    ("log.flush.offset.checkpoint.interval.ms", INT, 60000, AT_LEAST_0, HIGH, FIXED,
     "How often recovery points are written down."),
    ("log.flush.start.offset.checkpoint.interval.ms", INT, 60000, AT_LEAST_0, HIGH, FIXED,
     "How often log start offsets are written down."),
    ("log.index.interval.bytes", INT, 4096, AT_LEAST_0, MEDIUM, CLUSTER,
     "Bytes of log between two entries of its offset index."),
    ("log.index.size.max.bytes", INT, 10485760, Range(4), MEDIUM, CLUSTER,
     "Largest index file; a full index begins a new segment."),
    ("log.preallocate", BOOLEAN, False, None, MEDIUM, CLUSTER,
     "Whether a segment is given its full size on disk when it is begun."),
    ("log.message.format.version", STRING, "2.3-IV1", KAFKA_VERSION, MEDIUM, FIXED,
     "Accepted and shown; records are always stored in format v2."),
    ("log.message.timestamp.type", STRING, "CreateTime", TIMESTAMP_TYPES, MEDIUM, CLUSTER,
     "Whether a record's time is its producer's or that of its arrival."),
    ("log.message.timestamp.difference.max.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "Largest difference between a record's time and its arrival; larger ones are refused."),
    ("log.message.timestamp.before.max.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "How far in the past a record's time may lie (KIP-937)."),
    ("log.message.timestamp.after.max.ms", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "How far in the future a record's time may lie (KIP-937)."),
    ("log.message.downconversion.enable", BOOLEAN, True, None, LOW, CLUSTER,
     "Whether old consumers are served in their own record format."),
    ("num.recovery.threads.per.data.dir", INT, 1, AT_LEAST_1, HIGH, CLUSTER,
     "Threads that load the logs of one data directory at start."),
    ("num.replica.alter.log.dirs.threads", INT, None, None, HIGH, FIXED,
     "Threads that move replicas between data directories; unset: one a directory."),

    # Compaction
    ("log.cleaner.enable", BOOLEAN, True, None, MEDIUM, FIXED,
     "Whether compacted topics are compacted."),
    ("log.cleaner.threads", INT, 1, AT_LEAST_0, MEDIUM, CLUSTER,
     "Threads that compact."),
    ("log.cleaner.backoff.ms", LONG, 15000, AT_LEAST_0, MEDIUM, CLUSTER,
     "Pause when there is nothing to compact."),
    ("log.cleaner.dedupe.buffer.size", LONG, 134217728, None, MEDIUM, CLUSTER,
     "Memory for the keys of a compaction, over all threads."),
    ("log.cleaner.io.buffer.size", INT, 524288, AT_LEAST_0, MEDIUM, CLUSTER,
     "Memory for reading and writing in a compaction, over all threads."),
    ("log.cleaner.io.buffer.load.factor", DOUBLE, 0.9, None, MEDIUM, CLUSTER,
     "How full the memory for keys may get."),
    ("log.cleaner.io.max.bytes.per.second", DOUBLE, DOUBLE_MAX, None, MEDIUM, CLUSTER,
     "Rate that the reads and writes of compaction together are held to."),
    ("log.cleaner.delete.retention.ms", LONG, 86400000, None, MEDIUM, CLUSTER,
     "How long a compacted topic keeps the markers of deleted keys."),
    ("log.cleaner.min.cleanable.ratio", DOUBLE, 0.5, None, MEDIUM, CLUSTER,
     "Part of a log that must be uncompacted before it is compacted."),
    ("log.cleaner.min.compaction.lag.ms", LONG, 0, None, MEDIUM, CLUSTER,
     "Age below which a record is not compacted away."),
    ("log.cleaner.max.compaction.lag.ms", LONG, LONG_MAX, None, MEDIUM, CLUSTER,
     "Age above which a record is due for compaction."),

    # Groups and their offsets
    ("group.initial.rebalance.delay.ms", INT, 3000, None, MEDIUM, FIXED,
     "How long a new group waits for more members before its first rebalance."),
    ("group.min.session.timeout.ms", INT, 6000, None, MEDIUM, FIXED,
     "Shortest session time-out a member may ask for."),
    ("group.max.session.timeout.ms", INT, 1800000, None, MEDIUM, FIXED,
     "Longest session time-out a member may ask for."),
    ("group.max.size", INT, INT_MAX, AT_LEAST_1, MEDIUM, FIXED,
     "Most members of a group."),
    ("group.consumer.session.timeout.ms", INT, 45000, AT_LEAST_1, MEDIUM, FIXED,
     "Silence after which a member of the consumer protocol counts as gone."),
    ("group.consumer.heartbeat.interval.ms", INT, 5000, AT_LEAST_1, MEDIUM, FIXED,
     "How often members of the consumer protocol are told to heartbeat."),
    ("group.consumer.max.size", INT, INT_MAX, AT_LEAST_1, MEDIUM, FIXED,
     "Most members of a group of the consumer protocol."),
    ("group.consumer.assignors", LIST, ("uniform", "range"), ListOf("uniform", "range"), MEDIUM,
     FIXED,
     "Assignors that members may ask for; the first is taken when they do not ask."),
    ("offset.metadata.max.bytes", INT, 4096, None, HIGH, FIXED,
     "Largest text that may be stored with a committed offset."),
    ("offsets.commit.required.acks", SHORT, -1, None, HIGH, FIXED,
     "Acknowledgements a commit waits for; -1 is all."),
    ("offsets.commit.timeout.ms", INT, 5000, AT_LEAST_1, HIGH, FIXED,
     "How long a commit waits for its acknowledgements."),
    ("offsets.load.buffer.size", INT, 5242880, AT_LEAST_1, HIGH, FIXED,
     "Bytes read at a time when groups are loaded."),
    ("offsets.retention.minutes", INT, 10080, AT_LEAST_1, HIGH, FIXED,
     "How long offsets are kept after a group lost its last member."),
    ("offsets.retention.check.interval.ms", LONG, 600000, AT_LEAST_1, HIGH, FIXED,
     "How often offsets are looked over for expiry."),
    ("offsets.topic.num.partitions", INT, 50, AT_LEAST_1, HIGH, FIXED,
     "Partitions of __consumer_offsets; not to be changed once it exists."),
    ("offsets.topic.replication.factor", SHORT, 3, AT_LEAST_1, HIGH, FIXED,
     "Replicas of __consumer_offsets; 1 without ZooKeeper."),
    ("offsets.topic.segment.bytes", INT, 104857600, AT_LEAST_1, HIGH, FIXED,
     "Segment size of __consumer_offsets."),
    ("offsets.topic.compression.codec", INT, 0, CODEC_IDS, HIGH, FIXED,
     "Codec of commits: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."),

    # Transactions
    ("transactional.id.expiration.ms", INT, 604800000, AT_LEAST_1, HIGH, FIXED,
     "How long a transactional id that is not used is remembered."),
    ("transaction.max.timeout.ms", INT, 900000, AT_LEAST_1, HIGH, FIXED,
     "Longest transaction time-out a producer may ask for."),
    ("transaction.abort.timed.out.transaction.cleanup.interval.ms", INT, 60000, AT_LEAST_1, LOW,
     FIXED, "How often transactions are looked over for time-outs."),
    ("transaction.remove.expired.transaction.cleanup.interval.ms", INT, 3600000, AT_LEAST_1, LOW,
     FIXED, "How often transactional ids are looked over for expiry."),
    ("transaction.state.log.num.partitions", INT, 50, AT_LEAST_1, HIGH, FIXED,
     "Partitions of __transaction_state; not to be changed once it exists."),
    ("transaction.state.log.replication.factor", SHORT, 3, AT_LEAST_1, HIGH, FIXED,
     "Replicas of __transaction_state; 1 without ZooKeeper."),
    ("transaction.state.log.min.isr", INT, 2, AT_LEAST_1, HIGH, FIXED,
     "min.insync.replicas of __transaction_state; 1 without ZooKeeper."),
    ("transaction.state.log.segment.bytes", INT, 104857600, AT_LEAST_1, HIGH, FIXED,
     "Segment size of __transaction_state."),
    ("transaction.state.log.load.buffer.size", INT, 5242880, AT_LEAST_1, HIGH, FIXED,
     "Bytes read at a time when transactions are loaded."),

    # Replication
    ("replica.selector.class", STRING, "org.apache.kafka.common.replica.LeaderSelector",
     REPLICA_SELECTORS, MEDIUM, FIXED,
     "Whom consumers read from (KIP-392): the leader, or a replica in their own rack."),
    ("inter.broker.protocol.version", STRING, "2.3-IV1", KAFKA_VERSION, MEDIUM, FIXED,
     "Protocol that brokers of the cluster speak with each other."),
    ("num.replica.fetchers", INT, 1, None, HIGH, CLUSTER,
     "Fetchers to each other broker."),
    ("replica.lag.time.max.ms", LONG, 10000, None, HIGH, FIXED,
     "A follower that has not caught up for so long leaves the ISR."),
    ("replica.fetch.min.bytes", INT, 1, None, HIGH, FIXED,
     "Least bytes a follower waits for."),
    ("replica.fetch.max.bytes", INT, 1048576, AT_LEAST_0, MEDIUM, FIXED,
     "Bytes a follower asks for from one partition."),
    ("replica.fetch.response.max.bytes", INT, 10485760, AT_LEAST_0, MEDIUM, FIXED,
     "Bytes a follower asks for in one answer."),
    ("replica.fetch.wait.max.ms", INT, 500, None, HIGH, FIXED,
     "Longest wait of a follower's fetch; not above replica.lag.time.max.ms."),
    ("replica.fetch.backoff.ms", INT, 1000, AT_LEAST_0, MEDIUM, FIXED,
     "Pause of a follower after a failed fetch."),
    ("replica.socket.timeout.ms", INT, 30000, None, HIGH, FIXED,
     "How long a follower waits for an answer; not below replica.fetch.wait.max.ms."),
    ("replica.socket.receive.buffer.bytes", INT, 65536, Range(-1), HIGH, FIXED,
     "SO_RCVBUF of a follower's connection."),
    ("replica.high.watermark.checkpoint.interval.ms", LONG, 5000, None, HIGH, FIXED,
     "How often high watermarks are written down."),
    ("auto.leader.rebalance.enable", BOOLEAN, True, None, HIGH, FIXED,
     "Whether leadership goes back to preferred replicas by itself."),
    ("leader.imbalance.check.interval.seconds", LONG, 300, None, HIGH, FIXED,
     "How often leadership is looked over for imbalance."),
    ("leader.imbalance.per.broker.percentage", INT, 10, None, HIGH, FIXED,
     "Share of partitions led by others than the preferred replica that sets it off."),
    ("controlled.shutdown.enable", BOOLEAN, True, None, MEDIUM, FIXED,
     "Whether a broker hands its leaderships over before it stops."),
    ("controlled.shutdown.max.retries", INT, 3, None, MEDIUM, FIXED,
     "Tries of a hand-over."),
    ("controlled.shutdown.retry.backoff.ms", LONG, 5000, None, MEDIUM, FIXED,
     "Pause between tries of a hand-over."),
    ("controller.socket.timeout.ms", INT, 30000, None, MEDIUM, FIXED,
     "How long the controller waits for a broker's answer."),

    # ZooKeeper
    ("zookeeper.connect", STRING, None, None, HIGH, FIXED,
     "ZooKeeper servers as host:port separated by commas, and a path; unset: one broker with "
     "its own metadata store."),
    ("zookeeper.session.timeout.ms", INT, 6000, None, HIGH, FIXED,
     "ZooKeeper session time-out."),
    ("zookeeper.connection.timeout.ms", INT, None, None, HIGH, FIXED,
     "How long connecting to ZooKeeper may take; unset: the session time-out."),
    ("zookeeper.max.in.flight.requests", INT, 10, AT_LEAST_1, HIGH, FIXED,
     "ZooKeeper requests under way at the same time."),
    ("zookeeper.set.acl", BOOLEAN, False, None, HIGH, FIXED,
     "Whether znodes are created with ACLs that only brokers can write."),
    ("zookeeper.ssl.client.enable", BOOLEAN, False, None, MEDIUM, FIXED,
     "Whether connections to ZooKeeper are encrypted; its servers then need a secureClientPort."),
    ("zookeeper.ssl.keystore.location", STRING, None, None, MEDIUM, FIXED,
     "File with the key and certificate that this broker shows to ZooKeeper."),
    ("zookeeper.ssl.keystore.password", PASSWORD, None, None, MEDIUM, FIXED,
     "Password of that key store, and of its key."),
    ("zookeeper.ssl.truststore.location", STRING, None, None, MEDIUM, FIXED,
     "File with the certificates that ZooKeeper's is checked by; unset: this machine's."),
    ("zookeeper.ssl.truststore.password", PASSWORD, None, None, MEDIUM, FIXED,
     "Password of that trust store."),
    ("zookeeper.ssl.enabled.protocols", LIST, ("TLSv1.2", "TLSv1.3"), None, LOW, FIXED,
     "TLS versions for connections to ZooKeeper."),
    ("zookeeper.ssl.cipher.suites", LIST, (), None, LOW, FIXED,
     "Cipher suites for connections to ZooKeeper; empty is all usual ones."),
    ("zookeeper.ssl.endpoint.identification.algorithm", STRING, "HTTPS", None, LOW, FIXED,
     "How the name in ZooKeeper's certificate is checked; empty is not at all."),
    ("zookeeper.sync.time.ms", INT, 2000, None, LOW, FIXED,
     "How far a ZooKeeper follower may lag behind its leader."),

    # Quotas
    ("quota.producer.default", LONG, LONG_MAX, AT_LEAST_1, HIGH, FIXED,
     "Bytes per second of a producer without a quota of its own."),
    ("quota.consumer.default", LONG, LONG_MAX, AT_LEAST_1, HIGH, FIXED,
     "Bytes per second of a consumer without a quota of its own."),
    ("quota.window.num", INT, 11, AT_LEAST_1, LOW, FIXED,
     "Samples that client quotas are measured over."),
    ("quota.window.size.seconds", INT, 1, AT_LEAST_1, LOW, FIXED,
     "Length of such a sample."),
    ("replication.quota.window.num", INT, 11, AT_LEAST_1, LOW, FIXED,
     "Samples that replication quotas are measured over."),
    ("replication.quota.window.size.seconds", INT, 1, AT_LEAST_1, LOW, FIXED,
     "Length of such a sample."),
    ("alter.log.dirs.replication.quota.window.num", INT, 11, AT_LEAST_1, LOW, FIXED,
     "Samples that moves between data directories are measured over."),
    ("alter.log.dirs.replication.quota.window.size.seconds", INT, 1, AT_LEAST_1, LOW, FIXED,
     "Length of such a sample."),

    # Plug-ins and metrics
    ("authorizer.class.name", STRING, "", AUTHORIZERS, LOW, FIXED,
     "Authorizer that ACLs are enforced by; unset: everybody may do everything."),
    ("create.topic.policy.class.name", CLASS, None, NO_JAVA_CLASS, LOW, FIXED,
     "Policy that new topics must pass."),
    ("alter.config.policy.class.name", CLASS, None, NO_JAVA_CLASS, LOW, FIXED,
     "Policy that changes of settings must pass."),
    ("client.quota.callback.class", CLASS, None, NO_JAVA_CLASS, LOW, FIXED,
     "Plug-in that decides on client quotas."),
    ("metrics.num.samples", INT, 2, AT_LEAST_1, LOW, FIXED,
     "Samples that metrics are computed over."),
    ("metrics.sample.window.ms", LONG, 30000, AT_LEAST_1, LOW, FIXED,
     "Length of such a sample."),
    ("metrics.recording.level", STRING, "INFO", None, LOW, FIXED,
     "Detail of metrics that is recorded."),
)

# Settings of machinery that this broker does without; files that carry them are welcome.
_INEFFECTIVE_ROWS: Final[tuple[_Row, ...]] = (
    ("num.network.threads", INT, 3, AT_LEAST_1, HIGH, CLUSTER,
     "Kafka's network threads; here one event loop serves all connections."),
    ("num.io.threads", INT, 8, AT_LEAST_1, HIGH, CLUSTER,
     "Kafka's request threads; here one event loop serves all requests."),
    ("background.threads", INT, 10, AT_LEAST_1, HIGH, CLUSTER,
     "Kafka's threads for background work; here they are started as they are needed."),
    ("fetch.purgatory.purge.interval.requests", INT, 1000, None, MEDIUM, FIXED,
     "Kafka's purging of waiting fetches; here a finished request leaves at once."),
    ("producer.purgatory.purge.interval.requests", INT, 1000, None, MEDIUM, FIXED,
     "Kafka's purging of waiting produce requests; here a finished request leaves at once."),
    ("delete.records.purgatory.purge.interval.requests", INT, 1, None, MEDIUM, FIXED,
     "Kafka's purging of waiting deletions; here a finished request leaves at once."),
    ("metric.reporters", LIST, (), None, LOW, CLUSTER,
     "Java classes that report Kafka's metrics."),
    ("kafka.metrics.reporters", LIST, (), None, LOW, FIXED,
     "Java classes that report Kafka's metrics."),
    ("kafka.metrics.polling.interval.secs", INT, 10, AT_LEAST_1, LOW, FIXED,
     "How often such classes poll."),
)

# Kafka keeps these out of its static table: they exist only as dynamic settings.
_THROTTLE_ROWS: Final[tuple[_Row, ...]] = (
    ("leader.replication.throttled.rate", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "Bytes per second sent to throttled replicas."),
    ("follower.replication.throttled.rate", LONG, LONG_MAX, AT_LEAST_0, MEDIUM, CLUSTER,
     "Bytes per second fetched by throttled replicas."),
    ("replica.alter.log.dirs.io.max.bytes.per.second", LONG, LONG_MAX, AT_LEAST_0, MEDIUM,
     CLUSTER, "Bytes per second moved between data directories."),
)

_OWN_ROWS: Final[tuple[_Row, ...]] = (
    ("zookeeper.digest", PASSWORD, None, None, MEDIUM, FIXED,
     "Who this broker is to ZooKeeper, as user:password of its digest scheme."),
    ("compatibility", STRING, "latest", COMPATIBILITY_LEVELS, HIGH, FIXED,
     "Kafka release whose API versions are offered; latest offers all that work."),
    ("profile", STRING, "default", PROFILES, HIGH, FIXED,
     "Which defaults count: default listens on 127.0.0.1:9092 only; managed has the listeners of a "
     "managed instance on ports 9091 to 9093 and 9011, and knows those for the public on 9094 and "
     "9095; strict is managed with all of that product's limits."),
    ("instance.flavour", STRING, "none", INSTANCE_FLAVOURS, HIGH, CLUSTER,
     "Size of the instance, by its bandwidth in MB/s: caps its partitions, its clients' "
     "connections and its bandwidth; none is without caps."),
    ("quota.burst.seconds", DOUBLE, 0.5, None, LOW, FIXED,
     "Seconds' worth of a producer's or consumer's byte rate that may come at once before it is "
     "throttled; -1: as much as all samples of the quota window have, as in Kafka."),
    ("instance.bandwidth.bytes", LONG, 0, AT_LEAST_0, HIGH, CLUSTER,
     "Bytes per second that one broker takes from its clients, and as many that it gives them; 0: "
     "the broker's share of instance.flavour, or no limit without one."),
    ("public.bandwidth.mbits", INT, 0, AT_LEAST_0, HIGH, CLUSTER,
     "Megabits per second, in each direction, by the listeners PUBLIC_PLAIN and PUBLIC_SASL_SSL of "
     "all brokers together; 0 is without limit. The strict profile lets it only be raised."),
    ("source.allow", LIST, ("0.0.0.0/0", "::/0"), None, MEDIUM, CLUSTER,
     "Addresses that clients may connect from: networks such as 10.0.0.0/8, single addresses, and "
     "sets of source.rule.sets as @name. Meant for one listener: "
     "listener.name.<listener>.source.allow; without that it counts for all but the listener of "
     "brokers. Brokers are always let in."),
    ("source.deny", LIST, (), None, MEDIUM, CLUSTER,
     "Addresses that clients may not connect from, though source.allow has them; written and "
     "meant for listeners as that is."),
    ("source.rule.sets", STRING, "", None, MEDIUM, CLUSTER,
     "Named sets of addresses for source.allow and source.deny: name=address address..., "
     "separated by semicolons; a set may contain others as @name."),
    ("log.level", STRING, "INFO", LOG_LEVELS, MEDIUM, FIXED,
     "Least severity of what is logged."),
    ("group.max.count", INT, INT_MAX, AT_LEAST_1, LOW, FIXED,
     "Most groups that this broker coordinates, those that are only offsets included; who would "
     "make another one is refused with POLICY_VIOLATION."),
    ("capacity.threshold.percent", INT, 95, Range(1, 100), HIGH, CLUSTER,
     "How full the volume of a log directory, or the budget, may get before capacity.policy "
     "acts; 100 leaves volumes unwatched."),
    ("capacity.policy", STRING, "produce_reject", CAPACITY_POLICIES, HIGH, CLUSTER,
     "What happens at the threshold: produce_reject refuses records of producers until space is "
     "free again, time_base deletes the oldest tenth of all records."),
    ("capacity.budget.bytes", LONG, 0, AT_LEAST_0, HIGH, CLUSTER,
     "Bytes of records that all partitions of a broker together may hold; 0: only the volumes "
     "limit them."),
    ("allowed.principals", STRING, None, PRINCIPALS, MEDIUM, BROKER,
     "Principals that may use a listener, as User:name separated by semicolons; others log in "
     "there and are refused everything. Unset: everybody. Meant for one listener: "
     "listener.name.<listener>.allowed.principals."),
)
# fmt: on

_SINCE: Final = {
    "zookeeper.ssl.client.enable": "2.5",
    "zookeeper.ssl.keystore.location": "2.5",
    "zookeeper.ssl.keystore.password": "2.5",
    "zookeeper.ssl.truststore.location": "2.5",
    "zookeeper.ssl.truststore.password": "2.5",
    "zookeeper.ssl.enabled.protocols": "2.5",
    "zookeeper.ssl.cipher.suites": "2.5",
    "zookeeper.ssl.endpoint.identification.algorithm": "2.5",
    "group.consumer.assignors": "4.0",
    "group.consumer.heartbeat.interval.ms": "4.0",
    "group.consumer.max.size": "4.0",
    "group.consumer.session.timeout.ms": "4.0",
    "replica.selector.class": "2.4",
    "max.connection.creation.rate": "2.7",
    "log.message.timestamp.before.max.ms": "3.6",
    "log.message.timestamp.after.max.ms": "3.6",
}

OPTIONS: Final[tuple[Option, ...]] = (
    *(Option(*row, since=_SINCE.get(row[0], "")) for row in _ROWS),
    *(Option(*row, effective=False) for row in _INEFFECTIVE_ROWS),
    *(Option(*row, since="kavka") for row in _OWN_ROWS),
)
"""The static table."""

DYNAMIC_ONLY_OPTIONS: Final[tuple[Option, ...]] = tuple(Option(*row) for row in _THROTTLE_ROWS)
"""What exists only as a dynamic setting (``DynamicConfig.Broker``)."""
