"""How versions of the transactional APIs differ in what they call an error."""

from kavka.protocol.errors import ErrorCode


def fenced_code(code: ErrorCode, version: int, first_with_fenced: int) -> ErrorCode:
    """PRODUCER_FENCED as it is known from ``first_with_fenced`` on (KIP-588); clients of earlier
    versions call it INVALID_PRODUCER_EPOCH."""
    if code is ErrorCode.PRODUCER_FENCED and version < first_with_fenced:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return code


def abortable_code(code: ErrorCode, version: int, first_with_abortable: int) -> ErrorCode:
    """TRANSACTION_ABORTABLE as it is known from ``first_with_abortable`` on (KIP-890); before,
    INVALID_TXN_STATE."""
    if code is ErrorCode.TRANSACTION_ABORTABLE and version < first_with_abortable:
        return ErrorCode.INVALID_TXN_STATE
    return code
