"""The transactional batches of a Produce request: do they belong to a transaction that is open?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kavka.broker.produce.append import Append, fail
from kavka.broker.transactions.inclusion import is_open, refusal
from kavka.broker.transactions.messages import ProducerIdentity
from kavka.protocol.errors import ErrorCode, KafkaError
from kavka.protocol.records.batch import TRANSACTIONAL_MASK
from kavka.protocol.topics import TopicPartition

if TYPE_CHECKING:
    from kavka.broker.transactions.inclusion import Inclusion
    from kavka.replication.partition import Partition

FIRST_WITH_ABORTABLE: Final = 11
FIRST_WITH_ADDING: Final = 12
"""From this version on leaders add partitions for their producers (KIP-890)."""


class Question(NamedTuple):
    """Is this partition in the producer's transaction?"""

    append: Append
    partition: "Partition"
    identity: ProducerIdentity

    @property
    def target(self) -> TopicPartition:
        return self.partition.topic_partition


def questions(
    appends: Sequence[Append], transactional_id: str | None, version: int
) -> list[Question]:
    """What must be asked before the records are appended."""
    found = []
    for append in appends:
        partition, validated = append.partition, append.validated
        if append.result.error_code or partition is None or validated is None:
            continue
        for header, _ in validated.batches:
            if not header.attributes & TRANSACTIONAL_MASK:
                continue
            if transactional_id is None:
                error = KafkaError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
                fail(append, error, version)
                break
            identity = ProducerIdentity(header.producer_id, header.producer_epoch)
            if not is_open(partition, identity):
                found.append(Question(append, partition, identity))
                break  # all batches of a request for a partition are of one producer
    return found


def settle_now(
    inclusion: "Inclusion", transactional_id: str, asked: Sequence[Question], version: int
) -> bool:
    """Settle the questions if that takes no waiting; else False, and nothing is done."""
    if version >= FIRST_WITH_ADDING:
        return False
    answers: list[tuple[Question, ErrorCode]] = []
    for question in asked:
        target = question.target
        codes = inclusion.verify_now(transactional_id, question.identity, (target,))
        if codes is None:
            return False
        answers.append((question, codes[target]))
    for question, code in answers:
        _settle(question, code, version)
    return True


async def settle(
    inclusion: "Inclusion", transactional_id: str, asked: Sequence[Question], version: int
) -> None:
    """Ask, and refuse what does not belong."""
    by_identity: dict[ProducerIdentity, list[Question]] = {}
    for question in asked:
        by_identity.setdefault(question.identity, []).append(question)
    for identity, of_producer in by_identity.items():
        partitions = [question.partition for question in of_producer]
        codes = await inclusion.ask(
            transactional_id, identity, partitions, add=version >= FIRST_WITH_ADDING
        )
        for question in of_producer:
            _settle(question, codes[question.target], version)


def _settle(question: Question, code: ErrorCode, version: int) -> None:
    code = refusal(
        code,
        knows_abortable=version >= FIRST_WITH_ABORTABLE,
        bumping=version >= FIRST_WITH_ADDING,
    )
    if code is not ErrorCode.NONE:
        error = KafkaError(code, "The batch is not part of an open transaction.")
        fail(question.append, error, version)
