"""Decides who may do what: super users, ACLs, and the lists of principals of single listeners.

Asked for every topic of every request, so every decision is remembered until an ACL changes: a
decision made before is one dictionary look-up.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kavka.broker.security.acl.matching import AclTable, bare_host, decide, decide_any
from kavka.broker.security.acl.model import Operation, Resource
from kavka.config.limits import ACL_DECISIONS_MAX

if TYPE_CHECKING:
    from kavka.broker.security.acl.store import AclStore

_Question = tuple[str, str, Operation, Resource, str]
_SomeQuestion = tuple[str, str, Operation, Resource]


class Authorizer:
    """What a broker asks before it does anything for anybody.

    ``acls`` is None where only the lists of listeners restrict clients: then whoever may use a
    listener may do everything. ``by_listener`` names the principals that may use a listener;
    listeners that are not in it are open to all.
    """

    __slots__ = (
        "_decisions",
        "_some_decisions",
        "_super_users",
        "_table",
        "acls",
        "by_listener",
        "open_by_default",
    )

    def __init__(
        self,
        acls: "AclStore | None",
        super_users: frozenset[str] = frozenset(),
        *,
        open_by_default: bool = False,
        by_listener: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self.acls = acls
        self.open_by_default = open_by_default
        self._super_users = super_users
        self.by_listener = dict(by_listener or {})
        self._table = AclTable() if acls is None else acls.table
        self._decisions: dict[_Question, bool] = {}
        self._some_decisions: dict[_SomeQuestion, bool] = {}
        if acls is not None:
            acls.on_change = self.forget_decisions

    def allowed(
        self, principal: str, host: str, operation: Operation, resource: Resource, name: str
    ) -> bool:
        """Whether ``principal``, at the address ``host`` (``1.2.3.4`` or ``/1.2.3.4``), may do
        ``operation`` to the resource ``name``.
        """
        question = (principal, host, operation, resource, name)
        decision = self._decisions.get(question)
        if decision is None:
            if len(self._decisions) >= ACL_DECISIONS_MAX:
                self._decisions.clear()
            decision = self._decisions[question] = self._decide(*question)
        return decision

    def allowed_some(
        self, principal: str, host: str, operation: Operation, resource: Resource
    ) -> bool:
        """Whether ``principal`` may do ``operation`` to any resource of a type (KIP-679)."""
        question = (principal, host, operation, resource)
        decision = self._some_decisions.get(question)
        if decision is None:
            if len(self._some_decisions) >= ACL_DECISIONS_MAX:
                self._some_decisions.clear()
            decision = self._some_decisions[question] = self._decide_some(*question)
        return decision

    def admits(self, listener: str, principal: str) -> bool:
        """Whether ``principal`` may use the listener at all."""
        principals = self.by_listener.get(listener)
        return principals is None or principal in principals

    def restrict_listeners(self, by_listener: Mapping[str, frozenset[str]]) -> None:
        """Replace the lists of principals of listeners."""
        self.by_listener = dict(by_listener)

    def forget_decisions(self) -> None:
        """An ACL has changed."""
        self._decisions.clear()
        self._some_decisions.clear()

    def _decide(
        self, principal: str, host: str, operation: Operation, resource: Resource, name: str
    ) -> bool:
        if self.acls is None or principal in self._super_users:
            return True
        entries = self._table.about(resource, name)
        verdict = decide(entries, principal, bare_host(host), operation)
        return self.open_by_default if verdict is None else verdict

    def _decide_some(
        self, principal: str, host: str, operation: Operation, resource: Resource
    ) -> bool:
        if self.acls is None or principal in self._super_users:
            return True
        return decide_any(
            self._table,
            principal,
            bare_host(host),
            operation,
            resource,
            open_by_default=self.open_by_default,
        )


def parse_principals(text: str | None) -> frozenset[str]:
    """The principals of ``User:a;User:b``, which the setting's validator has let through."""
    return frozenset(part.strip() for part in (text or "").split(";")) - {""}
