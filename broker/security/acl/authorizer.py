"""Decides who may do what: super users, ACLs, and the lists of principals of single listeners.

Asked for every topic of every request, so every decision is remembered until an ACL changes: a
decision made before is one dictionary look-up.
"""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from kavka.broker.security.acl.matching import AclTable, decide, decide_any
from kavka.broker.security.acl.model import Operation, Resource, is_principal
from kavka.config.limits import ACL_DECISIONS_MAX
from kavka.config.option import ConfigError, invalid

if TYPE_CHECKING:
    import random

    from kavka.broker.security.acl.store import AclStore
    from kavka.config.broker import BrokerConfig
    from kavka.replication.store.base import MetadataStore
    from kavka.storage.clock import Clock

log = logging.getLogger("kavka.acl")

STANDARD_AUTHORIZER: Final = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
SUPER_USERS: Final = "super.users"
ALLOW_BY_DEFAULT: Final = "allow.everyone.if.no.acl.found"
LISTENER_PRINCIPALS: Final = "allowed.principals"

_Question = tuple[str, str, Operation, Resource, str]
_SomeQuestion = tuple[str, str, Operation, Resource]


class Authorizer:
    """What a broker asks before it does anything for anybody.

    ``acls`` is None where only the lists of listeners restrict clients: then whoever may use a
    listener may do everything. ``by_listener`` names the principals that may use a listener;
    listeners that are not in it are open to all.
    """

    __slots__ = (
        "_by_listener",
        "_decisions",
        "_some_decisions",
        "_super_users",
        "_table",
        "acls",
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
        self._by_listener = dict(by_listener or {})
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
        principals = self._by_listener.get(listener)
        return principals is None or principal in principals

    def restrict_listeners(self, by_listener: Mapping[str, frozenset[str]]) -> None:
        """Replace the lists of principals of listeners."""
        self._by_listener = dict(by_listener)

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


def bare_host(host: str) -> str:
    """An address as ACLs name it: Java's spelling of it, without a slash in front."""
    host = host.removeprefix("/")
    if ":" not in host:
        return host
    from ipaddress import ip_address

    address, _, _zone = host.partition("%")
    try:
        parsed = ip_address(address)
    except ValueError:
        return host
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return ":".join(f"{int(group, 16):x}" for group in parsed.exploded.split(":"))


def parse_principals(setting: str, text: str | None) -> frozenset[str]:
    """The principals of ``User:a;User:b``. Raises ConfigError for what is none."""
    principals = frozenset(part.strip() for part in (text or "").split(";")) - {""}
    for principal in principals:
        if not is_principal(principal):
            raise invalid(
                setting,
                text,
                f"expected principals such as User:alice, separated by semicolons, "
                f"but got {principal}",
            )
    return principals


def listener_principals(config: "BrokerConfig") -> dict[str, frozenset[str]]:
    """The principals of every listener that has a list of them. Raises ConfigError."""
    found = {}
    for endpoint in config.listeners:
        value = config.listener_value(endpoint.name, LISTENER_PRINCIPALS)
        if value:
            assert isinstance(value, str)
            found[endpoint.name] = parse_principals(LISTENER_PRINCIPALS, value)
    return found


async def open_authorizer(
    config: "BrokerConfig", store: "MetadataStore", clock: "Clock", rng: "random.Random"
) -> Authorizer | None:
    """The authorizer that the settings ask for, with all ACLs loaded; None if they ask for none.

    Raises ConfigError and StoreError.
    """
    name = config.get_str("authorizer.class.name")
    by_listener = listener_principals(config)
    if not name:
        return Authorizer(None, by_listener=by_listener) if by_listener else None
    if name == STANDARD_AUTHORIZER:
        log.info("ACLs are kept in the metadata store, as by AclAuthorizer asked_for=%s", name)
    super_users = parse_principals(SUPER_USERS, config.get_optional_str(SUPER_USERS))
    open_by_default = (config.get_optional_str(ALLOW_BY_DEFAULT) or "").strip().lower()
    if open_by_default not in ("", "true", "false"):
        raise ConfigError(ALLOW_BY_DEFAULT, f"{ALLOW_BY_DEFAULT} must be true or false")
    from kavka.broker.security.acl.store import AclStore

    acls = AclStore(store, clock, rng)
    authorizer = Authorizer(
        acls, super_users, open_by_default=open_by_default == "true", by_listener=by_listener
    )
    await acls.start()
    log.info(
        "ACLs are enforced patterns=%d super_users=%d open_by_default=%s",
        *(sum(1 for _ in acls.table), len(super_users), open_by_default == "true"),
    )
    return authorizer
