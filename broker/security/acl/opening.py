"""The authorizer that a broker's settings ask for; where they ask for none, nothing is loaded."""

import logging
from contextlib import AsyncExitStack
from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.config.broker import BrokerConfig

log = logging.getLogger("kavka.acl")

STANDARD_AUTHORIZER: Final = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
SUPER_USERS: Final = "super.users"
OPEN_BY_DEFAULT: Final = "allow.everyone.if.no.acl.found"
LISTENER_PRINCIPALS: Final = "allowed.principals"


async def open_authorizer(broker: "Broker", rng: Random, teardown: AsyncExitStack) -> None:
    """Give the broker its authorizer, all ACLs loaded, if its settings ask for one; let it follow
    the lists of principals of listeners in any case.

    Raises StoreError: a broker that cannot read its ACLs must not let anybody in.
    """
    config = broker.config
    name = config.get_str("authorizer.class.name")
    if name:
        from kavka.broker.security.acl.authorizer import Authorizer, parse_principals
        from kavka.broker.security.acl.store import AclStore

        if name == STANDARD_AUTHORIZER:
            log.info("ACLs are kept in the metadata store, as by AclAuthorizer asked_for=%s", name)
        acls = AclStore(broker.store, broker.clock, rng)
        super_users = parse_principals(config.get_optional_str(SUPER_USERS))
        open_by_default = (config.get_optional_str(OPEN_BY_DEFAULT) or "").lower() == "true"
        broker.authorizer = Authorizer(acls, super_users, open_by_default=open_by_default)
        await acls.start()
        teardown.push_async_callback(acls.stop)
        log.info(
            "ACLs are enforced patterns=%d super_users=%d open_by_default=%s",
            *(sum(1 for _ in acls.table), len(super_users), open_by_default),
        )
    follow_listener_lists(broker)


def follow_listener_lists(broker: "Broker") -> None:
    """Have the authorizer know who may use which listener, now and after each change of it."""

    def follow(_changed: frozenset[str] = frozenset()) -> None:
        lists = _listener_lists(broker.config)
        if broker.authorizer is not None:
            broker.authorizer.restrict_listeners(lists)
        elif lists:
            from kavka.broker.security.acl.authorizer import Authorizer

            broker.authorizer = Authorizer(None, by_listener=lists)

    broker.config.on_change(("listeners", LISTENER_PRINCIPALS), follow)
    follow()


def _listener_lists(config: "BrokerConfig") -> dict[str, frozenset[str]]:
    lists = {}
    for endpoint in config.listeners:
        text = config.listener_value(endpoint.name, LISTENER_PRINCIPALS)
        if text:
            from kavka.broker.security.acl.authorizer import parse_principals

            assert isinstance(text, str)
            lists[endpoint.name] = parse_principals(text)
    return lists
