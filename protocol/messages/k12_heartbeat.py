"""Heartbeat: a member says that it lives.

v1 throttling, v3 static members (KIP-345), v4 flexible.
"""

from kavka.protocol.schema import Message, int16, int32, string


class HeartbeatRequest(Message, key=12, versions=(0, 4), flexible=4):
    group_id: str = string()
    generation_id: int = int32()
    member_id: str = string()
    group_instance_id: str | None = string(since=3, nullable=True, default=None)


class HeartbeatResponse(Message, key=12, versions=(0, 4), flexible=4):
    throttle_time_ms: int = int32(since=1)
    error_code: int = int16()
