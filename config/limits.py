"""Bounds on what one client, request or file can make the broker do.

Figures that an operator may want to move are settings (``socket.request.max.bytes``,
``max.connections.per.ip``, …); these are the ones that keep the broker alive whatever those say.
Append new ones at the end.
"""

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- frames --------------------------------------------------------------------------------

FRAME_BYTES_MIN: Final = 8
"""Smallest request: key, version and correlation id; less is not Kafka."""

FRAME_BYTES_MAX_BEFORE_AUTHENTICATION: Final = 512 * KIB
"""Largest frame before a SASL listener knows its peer (Kafka's sasl.server.max.receive.size)."""

RECEIVE_BUFFER_BYTES: Final = 256 * KIB
"""The receive buffer all connections share; a larger frame gets a buffer of its own."""

STRING_BYTES_MAX: Final = 32767
"""A nullable string's length is an INT16 before the flexible versions."""

# -- connections ---------------------------------------------------------------------------

PARKED_REQUESTS_PER_CONNECTION_MAX: Final = 64
"""Requests of one connection that may wait at the same time; then it is not read."""

QUEUED_BYTES_PER_CONNECTION_MAX: Final = 16 * MIB
"""Answers waiting for a slow reader; above it the connection's requests are not read."""

REQUESTS_PER_TURN_MAX: Final = 256
"""Frames of one connection handled in one turn of the loop, so that others get theirs."""

LISTEN_BACKLOG: Final = 4096
"""Connections the kernel keeps while the loop is busy."""

# -- records -------------------------------------------------------------------------------

DECOMPRESSED_BATCH_BYTES_MAX: Final = 128 * MIB
"""What one compressed batch may unpack to where the broker must look inside."""

CONVERTED_RECORDS_MAX: Final = 1_000_000
"""Records of one batch where the broker must look at each for a client; that takes seconds. A few
hundred bytes of zstd can hold a hundred times as many."""

CONVERSIONS_AT_ONCE_MAX: Final = 2
"""Batches being unpacked and converted at the same time; each takes a few times its unpacked
size. Others wait."""

FETCH_BYTES_MAX: Final = 64 * MIB
"""Largest fetch answer whatever the client asked for (Kafka 2.5's fetch.max.bytes is 55 MiB)."""

# -- metadata and groups -------------------------------------------------------------------

PARTITIONS_PER_TOPIC_MAX: Final = 10_000
"""Partitions one request may ask for (its znode would outgrow 1 MiB soon after); the instance's
own cap comes on top."""

CLIENT_ID_CHARACTERS_LOGGED: Final = 128
"""A client's own texts are cut to this in log lines."""

CONFIG_CHARACTERS_MAX: Final = 512 * KIB
"""Names and values of all overrides of one topic or broker; a znode holds 1 MiB."""

FRAME_MEMORY_BYTES_MAX: Final = 256 * MIB
"""What all large frames now arriving or in work may hold together; beyond it connections wait.
``queued.max.request.bytes`` overrides it."""

FRAME_MEMORY_IDLE_BYTES_MAX: Final = 64 * MIB
"""Used frame buffers kept for the frames to come."""

FRAME_BYTES_PER_SECOND_MIN: Final = 16 * KIB
"""A large frame that arrives more slowly gives way when others wait for memory."""

ACCEPTS_PER_TURN_MAX: Final = 256
"""Connections accepted in one turn of the loop; a burst must not overflow the kernel's queue."""

# -- fetches of old clients ----------------------------------------------------------------

DOWN_CONVERTED_BYTES_MAX: Final = 4 * MIB
"""Most that one partition gives to a Fetch whose records must be converted in memory."""

CONVERTED_FETCH_BYTES_MAX: Final = 4 * DOWN_CONVERTED_BYTES_MAX
"""Most that all partitions of such a Fetch give."""

# -- consumer groups -----------------------------------------------------------------------

GROUP_TEXT_CHARACTERS_MAX: Final = 8_000
"""Longest group, client, instance or protocol name of a group: as UTF-8 it fits into a record
of ``__consumer_offsets``, whose lengths are INT16."""

PENDING_MEMBERS_PER_GROUP_MAX: Final = 10_000
"""Member ids given out by MEMBER_ID_REQUIRED and not used yet; each is forgotten after its
session time-out."""

# -- transactions --------------------------------------------------------------------------

TRANSACTIONAL_ID_CHARACTERS_MAX: Final = 8_000
"""Longest transactional id: as UTF-8 it fits into a record of ``__transaction_state``, whose
lengths are INT16."""

# -- what requests may cost ----------------------------------------------------------------

ELEMENTS_PER_MESSAGE_MAX: Final = 100_000
"""Structs and strings in all arrays of one message, eight numbers counting as one. A request with
so many keeps the event loop for a second and takes up to 100 MiB until it is answered."""

REQUEST_BYTES_MAX: Final = 16 * MIB
"""Largest request but Produce, whose records are never decoded."""

ERROR_MESSAGE_CHARACTERS_MAX: Final = 2_000
"""Error messages are cut to this; as UTF-8 they fit the INT16 lengths of old responses."""

AWAITED_PARTITIONS_MAX: Final = 500_000
"""Partitions that all waiting fetches name together; further ones are answered at once. Each
costs some 400 bytes."""

FETCH_SESSION_PARTITIONS_MAX: Final = 1_000_000
"""Partitions that all incremental fetch sessions remember; beyond it fetches get no session."""

GROUP_MEMBERS_BYTES_MAX: Final = 256 * MIB
"""What the members of all groups hold together: subscriptions, assignments, names."""

# -- calls to other brokers ----------------------------------------------------------------

ANSWER_BYTES_MAX: Final = 256 * MIB
"""Largest answer of another broker: a replica fetch may exceed its limit by one batch."""

CALLS_UNDER_WAY_MAX: Final = 1_000
"""Requests to one broker that have no answer yet, on one connection."""

# -- authorization -------------------------------------------------------------------------

ACL_DECISIONS_MAX: Final = 50_000
"""Decisions of the authorizer that are remembered; each takes some 250 bytes. One more than these,
and all are made anew."""

ACL_NODE_BYTES_MAX: Final = 1_000_000
"""Largest body of the ACLs of one pattern; a znode holds 1 MiB."""

AUDIT_REFUSALS_PER_MINUTE_MAX: Final = 30
"""Lines of the audit log about one principal's refused or failed actions of one kind; the rest is
only counted."""

AUDIT_ALL_REFUSALS_PER_MINUTE_MAX: Final = 3_000
"""The same for all principals together."""

AUDIT_LINES_PER_MINUTE_MAX: Final = 10_000
"""The same for actions that were done: those are records, so this only bounds what is absurd."""

AUDIT_SOURCES_MAX: Final = 2_000
"""Pairs of principal and action that are counted each on its own within a minute."""

AUDIT_TEXT_CHARACTERS_MAX: Final = 250
"""Names in the audit log are cut to this."""

# -- admission -----------------------------------------------------------------------------

REFUSAL_LINES_PER_SECOND_MAX: Final = 20
"""Refused connections that are logged one by one; the others are counted and summed up."""

HELD_REFUSALS_MAX: Final = 1_000
"""Refused connections kept open for a while, so that their clients do not come back at once; each
holds a descriptor."""

SOURCE_RULE_SETS_MAX: Final = 200
"""Named sets of addresses; they may be nested in each other."""

# -- TLS -----------------------------------------------------------------------------------

TLS_HANDSHAKE_SECONDS_MAX: Final = 15
"""Seconds that a client may take for its TLS handshake, waiting for its turn included."""

KEY_STORE_BYTES_MAX: Final = 16 * MIB
"""Largest file of keys or certificates that is read."""

# -- the produce lane ----------------------------------------------------------------------

PRODUCE_HEADS_MAX: Final = 1_000
"""Beginnings of Produce requests that one connection remembers: one for each partition."""

PRODUCE_REQUESTS_TOGETHER_MAX: Final = 64
"""Produce requests of one connection that are appended together; by so many there may be more
waiting than PARKED_REQUESTS_PER_CONNECTION_MAX."""
