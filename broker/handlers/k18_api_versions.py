"""ApiVersions: which requests this broker answers, in which versions.

v0 error and keys · v1 throttle time · v2 as v1 · v3 flexible, the client names its software,
feature levels (KIP-584) · v4 features may begin at level 0. A version that this broker does not
know is answered in v0 with UNSUPPORTED_VERSION and the versions of this one API, so that the client
can ask again (KIP-511).
"""

import re
from typing import TYPE_CHECKING, Final

from kavka.protocol import codec
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k18_api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.broker.request import Request

KEY: Final = 18
_NAMED_SINCE: Final = 3
_LOWEST_0_SINCE: Final = 4
_SOFTWARE: Final = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")


def handle_raw(broker: "Broker", request: "Request") -> bytes:
    """Tell what is offered; no authentication or authorization is needed for this."""
    version = request.version
    if version >= _NAMED_SINCE:
        body = codec.decode(ApiVersionsRequest, request.body, version)
        name, release = body.client_software_name, body.client_software_version
        if not (_SOFTWARE.fullmatch(name) and _SOFTWARE.fullmatch(release)):
            return codec.encode(ApiVersionsResponse(error_code=ErrorCode.INVALID_REQUEST), version)
        request.connection.client_software = f"{name} {release}"
    # Every connection starts with this question, and the answer never changes.
    answer = broker.api_versions_bodies.get(version)
    if answer is None:
        answer = broker.api_versions_bodies[version] = _encode_offer(broker, version)
    return answer


def _encode_offer(broker: "Broker", version: int) -> bytes:
    api_keys = [
        ApiVersion(api_key=key, min_version=low, max_version=high)
        for key, (low, high) in broker.offered_versions.items()
    ]
    response = ApiVersionsResponse(api_keys=api_keys)
    lowest = 0 if version >= _LOWEST_0_SINCE else 1
    for name, level in broker.features.items():
        response.finalized_features_epoch = 0
        response.supported_features.append(
            SupportedFeatureKey(name=name, min_version=lowest, max_version=level)
        )
        response.finalized_features.append(
            FinalizedFeatureKey(name=name, max_version_level=level, min_version_level=level)
        )
    return codec.encode(response, version)


def unsupported_version(low: int, high: int) -> ApiVersionsResponse:
    """The answer, in version 0, to a request of a version that is not between these."""
    return ApiVersionsResponse(
        error_code=ErrorCode.UNSUPPORTED_VERSION,
        api_keys=[ApiVersion(api_key=KEY, min_version=low, max_version=high)],
    )
