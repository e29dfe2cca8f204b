"""The audit log counts what it is told: each test has one of its own."""

import pytest

from kavka.broker import audit
from kavka.storage.clock import ManualClock


@pytest.fixture(autouse=True)
def own_audit_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_audit_log", audit.AuditLog(ManualClock()))
