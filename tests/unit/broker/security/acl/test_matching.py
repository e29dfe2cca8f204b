"""The decision over ACLs, beside a model that reads the rules literally."""

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kavka.broker.security.acl.matching import AclTable, bare_host, decide, decide_any
from kavka.broker.security.acl.model import (
    EVERYBODY,
    WILDCARD,
    Binding,
    BindingFilter,
    Entry,
    Operation,
    Pattern,
    PatternType,
    Permission,
    Resource,
)

ALLOW, DENY = Permission.ALLOW, Permission.DENY
LITERAL, PREFIXED = PatternType.LITERAL, PatternType.PREFIXED
TOPIC, GROUP = Resource.TOPIC, Resource.GROUP
OPERATIONS = [operation for operation in Operation if operation > Operation.ALL]

# Few and alike, so that they meet.
PRINCIPALS = ["User:a", "User:b"]
HOSTS = ["10.0.0.1", "10.0.0.2"]
NAMES = ["a", "ab", "abc", "b"]

patterns = st.builds(
    Pattern,
    st.sampled_from([TOPIC, GROUP]),
    st.sampled_from([*NAMES, WILDCARD]),
    st.sampled_from([LITERAL, PREFIXED]),
)
entries = st.builds(
    Entry,
    st.sampled_from([*PRINCIPALS, EVERYBODY]),
    st.sampled_from([*HOSTS, WILDCARD]),
    st.sampled_from([Operation.ALL, *OPERATIONS]),
    st.sampled_from([ALLOW, DENY]),
)
bindings = st.builds(Binding, patterns, entries)


def table_of(acls: set[Binding]) -> AclTable:
    table = AclTable()
    for pattern in {acl.pattern for acl in acls}:
        table.replace(pattern, [acl.entry for acl in acls if acl.pattern == pattern])
    return table


@dataclass
class Model:
    """KIP-11 and KIP-290 in their own words."""

    acls: set[Binding]

    def concerned(self, resource: Resource, name: str) -> list[Entry]:
        found = []
        for pattern, entry in self.acls:
            if pattern.resource is not resource:
                continue
            if pattern.type is LITERAL and pattern.name in (name, "*"):
                found.append(entry)
            if pattern.type is PREFIXED and name.startswith(pattern.name):
                found.append(entry)
        return found

    def decide(
        self, principal: str, host: str, operation: Operation, resource: Resource, name: str
    ) -> bool | None:
        concerned = self.concerned(resource, name)
        if not concerned:
            return None
        fitting = [
            entry
            for entry in concerned
            if entry.principal in (principal, "User:*") and entry.host in (host, "*")
        ]
        asked = {operation, Operation.ALL}
        if any(e.permission is DENY and e.operation in asked for e in fitting):
            return False
        if operation is Operation.DESCRIBE:
            asked |= {Operation.READ, Operation.WRITE, Operation.DELETE, Operation.ALTER}
        if operation is Operation.DESCRIBE_CONFIGS:
            asked |= {Operation.ALTER_CONFIGS}
        return any(e.permission is ALLOW and e.operation in asked for e in fitting)


@settings(deadline=None, max_examples=300)
@given(
    st.sets(bindings, max_size=8),
    st.sampled_from(PRINCIPALS),
    st.sampled_from(HOSTS),
    st.sampled_from(OPERATIONS),
    st.sampled_from([TOPIC, GROUP]),
    st.sampled_from(NAMES),
)
def test_decisions_are_those_of_the_rules(
    acls: set[Binding],
    principal: str,
    host: str,
    operation: Operation,
    resource: Resource,
    name: str,
) -> None:
    about = table_of(acls).about(resource, name)
    expected = Model(acls).decide(principal, host, operation, resource, name)
    assert decide(about, principal, host, operation) is expected


@settings(deadline=None, max_examples=200)
@given(st.sets(bindings, max_size=8), st.sampled_from(PRINCIPALS), st.booleans())
def test_some_topic_may_be_written_where_a_name_exists_that_may(
    acls: set[Binding], principal: str, open_by_default: bool
) -> None:
    """Every name that the ACLs could tell apart is tried; ``zz`` stands for all the others."""
    write = Operation.WRITE
    model = Model(acls)
    suffixes = ["", "zz"]
    names = {n + s for n in NAMES for s in suffixes} | {WILDCARD + s for s in suffixes} | {"zz"}
    verdicts = {name: model.decide(principal, HOSTS[0], write, TOPIC, name) for name in names}
    got = decide_any(
        table_of(acls), principal, HOSTS[0], write, TOPIC, open_by_default=open_by_default
    )
    if any(verdicts.values()):
        assert got
    elif got and not open_by_default:
        # A literal wildcard counts unless all names are denied: so Kafka's own short cut has it.
        assert any(
            pattern == Pattern(TOPIC, WILDCARD) and entry.permission is ALLOW
            for pattern, entry in acls
        )


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(patterns, st.sets(entries, max_size=3)), max_size=12))
def test_the_table_holds_what_was_put_last(changes: list[tuple[Pattern, set[Entry]]]) -> None:
    table = AclTable()
    expected: dict[Pattern, set[Entry]] = {}
    for pattern, some in changes:
        table.replace(pattern, some)
        expected[pattern] = some
    for pattern, some in expected.items():
        assert table.entries(pattern) == some
    assert set(table) == {pattern for pattern, some in expected.items() if some}
    assert set(table.bindings()) == {
        Binding(pattern, entry) for pattern, some in expected.items() for entry in some
    }


filters = st.builds(
    BindingFilter,
    st.sampled_from([Resource.ANY, TOPIC, GROUP]),
    st.sampled_from([None, *NAMES, WILDCARD]),
    st.sampled_from([PatternType.ANY, PatternType.MATCH, LITERAL, PREFIXED]),
    st.sampled_from([None, *PRINCIPALS, EVERYBODY]),
    st.sampled_from([None, *HOSTS, WILDCARD]),
    st.sampled_from([Operation.ANY, Operation.ALL, *OPERATIONS]),
    st.sampled_from([Permission.ANY, ALLOW, DENY]),
)


@settings(deadline=None, max_examples=200)
@given(filters, st.sets(bindings, max_size=10))
def test_a_filter_that_names_everything_selects_that_and_nothing_else(
    wanted: BindingFilter, acls: set[Binding]
) -> None:
    selected = {acl for acl in acls if wanted.matches(acl)}
    if wanted.only is not None:
        assert wanted.matches(wanted.only)
        assert selected == acls & {wanted.only}
    if wanted.type is PatternType.ANY:
        either = [wanted._replace(type=kind) for kind in (LITERAL, PREFIXED)]
        assert selected == {acl for acl in acls if any(f.matches(acl) for f in either)}
    if wanted.type is PatternType.MATCH and wanted.name is not None:
        # What decides about the resource of that name, and nothing else.
        about = Model({Binding(acl.pattern, acl.entry) for acl in acls})
        for resource in (TOPIC, GROUP):
            anyone = BindingFilter(resource, wanted.name, PatternType.MATCH)
            found = sorted(acl.entry for acl in acls if anyone.matches(acl))
            assert found == sorted(about.concerned(resource, wanted.name))


@pytest.mark.parametrize(
    ("text", "bare"),
    [
        ("/10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
        ("/::1", "0:0:0:0:0:0:0:1"),
        ("2001:DB8::7", "2001:db8:0:0:0:0:0:7"),
        ("fe80::1%eth0", "fe80:0:0:0:0:0:0:1"),
        ("/::ffff:10.0.0.1", "10.0.0.1"),
        ("no:address", "no:address"),
    ],
)
def test_hosts_are_compared_as_java_spells_them(text: str, bare: str) -> None:
    assert bare_host(text) == bare


def test_an_ipv6_host_fits_however_it_is_spelled() -> None:
    for spelled in ("::1", "0:0:0:0:0:0:0:1"):
        acl = Entry("User:a", spelled, Operation.READ, ALLOW)
        assert decide([acl], "User:a", bare_host("/::1"), Operation.READ)
        assert not decide([acl], "User:a", bare_host("/::2"), Operation.READ)
