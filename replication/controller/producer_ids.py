"""Producer ids: handed out once in the life of a cluster."""


class ProducerIds:
    """Gives out ids from blocks of 1000 that it reserves in ``/latest_producer_id_block``."""

    async def next(self) -> int:
        """An id that no producer has had. Raises KafkaError when the store cannot be written."""
        raise NotImplementedError
