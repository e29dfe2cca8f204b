"""Envelope: a request forwarded to the controller with its principal (KIP-590).

Flexible from the start.
"""

from kavka.protocol.schema import Message, binary, int16


class EnvelopeRequest(Message, key=58, versions=(0, 0), flexible=0):
    request_data: bytes = binary()
    request_principal: bytes | None = binary(nullable=True)
    client_host_address: bytes = binary()


class EnvelopeResponse(Message, key=58, versions=(0, 0), flexible=0):
    response_data: bytes | None = binary(nullable=True, default=None)
    error_code: int = int16()
