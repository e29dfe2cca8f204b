"""The topics that consumer groups read, as the metadata cache knows them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kavka.broker.groups.consumer.assignors import Topic
from kavka.protocol.errors import ErrorCode, KafkaError

if TYPE_CHECKING:
    import re2

    from kavka.replication.metadata import MetadataCache


class MetadataTopics:
    """The metadata cache as a ``TopicSource``."""

    def __init__(self, metadata: "MetadataCache") -> None:
        self._metadata = metadata
        self._matches: dict[str, frozenset[str]] = {}
        self._matched_version = -1

    @property
    def version(self) -> int:
        return self._metadata.version

    def find(self, names: frozenset[str]) -> Mapping[str, Topic]:
        topics = self._metadata.topics
        return {
            name: Topic(topics[name].topic_id, len(topics[name].partitions))
            for name in names
            if name in topics
        }

    def matching(self, regex: str) -> frozenset[str]:
        """By the syntax of RE2, as in Kafka: it takes time in proportion to the text, whatever the
        expression."""
        if self._matched_version != self._metadata.version:
            self._matches.clear()
            self._matched_version = self._metadata.version
        found = self._matches.get(regex)
        if found is None:
            pattern = _compile(regex)
            found = frozenset(name for name in self._metadata.topics if pattern.fullmatch(name))
            self._matches[regex] = found
        return found


def _compile(regex: str) -> "re2._Regexp":
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        why = error.args[0].decode() if error.args else ""
        raise KafkaError(
            ErrorCode.INVALID_REGULAR_EXPRESSION,
            f"SubscribedTopicRegex `{regex}` is not a valid regular expression: {why}.",
        ) from error
