"""DescribeClientQuotas and AlterClientQuotas over a real store, and quotas that follow it."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from kavka.broker.admission import Admission, Limits
from kavka.broker.dispatch import offered_versions
from kavka.broker.quotas.keeper import QuotaKeeper, bandwidths
from kavka.config.broker import BrokerConfig
from kavka.protocol.errors import ErrorCode
from kavka.protocol.messages.k19_create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from kavka.protocol.messages.k20_delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from kavka.protocol.messages.k37_create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from kavka.protocol.messages.k48_describe_client_quotas import (
    ComponentData,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)
from kavka.protocol.messages.k49_alter_client_quotas import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    EntityData,
    EntryData,
    OpData,
)
from kavka.replication import znodes
from kavka.replication.controller.configs import ConfigStore
from tests.unit.broker.admin import harness as admin_harness
from tests.unit.broker.admin.harness import Admin

EXACT, DEFAULT, ANY = range(3)
Named = dict[str, str | None]


class Quotas(Admin):
    """A broker whose quotas follow its store."""

    async def start(self, *others: int) -> None:
        await super().start(*others)
        self.broker.quota_keeper = QuotaKeeper(self.broker, self.harness.configs)

    async def alter(
        self, entity: Named, *, validate_only: bool = False, **values: float | None
    ) -> tuple[ErrorCode, str | None]:
        """Set quotas of one entity, or remove those that are None."""
        entry = EntryData(
            entity=[
                EntityData(entity_type=kind, entity_name=name) for kind, name in entity.items()
            ],
            ops=[
                OpData(key=key, value=value or 0.0, remove=value is None)
                for key, value in values.items()
            ],
        )
        request = AlterClientQuotasRequest(entries=[entry], validate_only=validate_only)
        (result,) = (await self.ask(1, request, AlterClientQuotasResponse)).entries
        assert {each.entity_type: each.entity_name for each in result.entity} == entity
        return ErrorCode(result.error_code), result.error_message

    async def describe(
        self, *components: tuple[str, int, str | None], strict: bool = False
    ) -> list[tuple[Named, dict[str, float]]]:
        response = await self.ask_for(*components, strict=strict)
        assert response.error_code == 0
        assert response.entries is not None
        return [
            (
                {each.entity_type: each.entity_name for each in entry.entity},
                {value.key: value.value for value in entry.values},
            )
            for entry in response.entries
        ]

    async def ask_for(
        self, *components: tuple[str, int, str | None], strict: bool = False
    ) -> DescribeClientQuotasResponse:
        request = DescribeClientQuotasRequest(
            components=[
                ComponentData(entity_type=kind, match_type=how, match=name)
                for kind, how, name in components
            ],
            strict=strict,
        )
        return await self.ask(1, request, DescribeClientQuotasResponse)


def run(
    directory: Path,
    scenario: Callable[[Quotas], Coroutine[Any, Any, None]],
    settings: dict[str, str] | None = None,
) -> None:
    quotas = Quotas(directory, settings)
    admin_harness.run(quotas, lambda: scenario(quotas))


ENTITIES: list[tuple[Named, dict[str, float]]] = [
    ({"user": "ann"}, {"producer_byte_rate": 1024.0}),
    ({"user": None}, {"request_percentage": 12.5}),
    ({"client-id": "app"}, {"consumer_byte_rate": 7.0}),
    ({"client-id": None}, {"consumer_byte_rate": 8.0}),
    ({"user": "ann", "client-id": "app"}, {"producer_byte_rate": 1.0, "consumer_byte_rate": 2.0}),
    ({"user": "ann", "client-id": None}, {"controller_mutation_rate": 0.5}),
    ({"user": None, "client-id": "app"}, {"producer_byte_rate": 3.0}),
    ({"ip": "10.0.0.1"}, {"connection_creation_rate": 9.0}),
    ({"ip": None}, {"connection_creation_rate": 99.0}),
]


async def set_all(quotas: Quotas) -> None:
    for entity, values in ENTITIES:
        assert (await quotas.alter(entity, **values))[0] is ErrorCode.NONE


def those(*places: int) -> list[tuple[Named, dict[str, float]]]:
    return [ENTITIES[place] for place in places]


@pytest.mark.parametrize(
    ("components", "strict", "expected"),
    [
        ((), False, range(9)),
        ((), True, ()),
        ((("user", EXACT, "ann"),), False, (0, 4, 5)),
        ((("user", EXACT, "ann"),), True, (0,)),
        ((("user", DEFAULT, None),), False, (1, 6)),
        ((("user", DEFAULT, None),), True, (1,)),
        ((("user", ANY, None),), False, (0, 1, 4, 5, 6)),
        ((("user", ANY, None),), True, (0, 1)),
        ((("client-id", EXACT, "app"),), False, (2, 4, 6)),
        ((("client-id", EXACT, "app"),), True, (2,)),
        ((("client-id", DEFAULT, None),), False, (3, 5)),
        ((("user", EXACT, "ann"), ("client-id", EXACT, "app")), True, (4,)),
        ((("user", ANY, None), ("client-id", ANY, None)), False, (4, 5, 6)),
        ((("user", EXACT, "ann"), ("client-id", DEFAULT, None)), True, (5,)),
        ((("ip", ANY, None),), True, (7, 8)),
        ((("ip", EXACT, "10.0.0.1"),), False, (7,)),
        ((("ip", DEFAULT, None),), False, (8,)),
        ((("user", EXACT, "bob"),), False, ()),
    ],
)
def test_entities_that_a_filter_finds(
    tmp_path: Path,
    components: tuple[tuple[str, int, str | None], ...],
    strict: bool,
    expected: list[int],
) -> None:
    async def scenario(quotas: Quotas) -> None:
        await set_all(quotas)
        found = await quotas.describe(*components, strict=strict)
        key = lambda each: sorted(map(str, each[0].items()))  # noqa: E731
        assert sorted(found, key=key) == sorted(those(*expected), key=key)

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("components", "code"),
    [
        ([("user", EXACT, "a"), ("user", ANY, None)], ErrorCode.INVALID_REQUEST),
        ([("", ANY, None)], ErrorCode.INVALID_REQUEST),
        ([("team", ANY, None)], ErrorCode.UNSUPPORTED_VERSION),
        ([("user", ANY, None), ("ip", ANY, None)], ErrorCode.INVALID_REQUEST),
        ([("user", 3, None)], ErrorCode.INVALID_REQUEST),
        ([("user", EXACT, None)], ErrorCode.INVALID_REQUEST),
    ],
)
def test_filters_that_make_no_sense(
    tmp_path: Path, components: list[tuple[str, int, str | None]], code: ErrorCode
) -> None:
    async def scenario(quotas: Quotas) -> None:
        response = await quotas.ask_for(*components)
        assert (response.error_code, response.entries) == (code, None)
        assert response.error_message

    run(tmp_path, scenario)


def test_nodes_are_kafkas(tmp_path: Path) -> None:
    """What ``kafka-configs --zookeeper`` reads and writes."""

    async def scenario(quotas: Quotas) -> None:
        store = quotas.harness.store
        entity: Named = {"user": "CN=ann, O=b", "client-id": "a*"}
        assert (await quotas.alter(entity, producer_byte_rate=1e6, request_percentage=50.0))[
            0
        ] is ErrorCode.NONE
        data, _ = await store.get("/config/users/CN%3Dann%2C%20O%3Db/clients/a%2A")
        assert data == (
            b'{"version":1,"config":{"producer_byte_rate":"1000000","request_percentage":"50.0"}}'
        )
        (change,) = await store.children(znodes.CONFIG_CHANGES)
        data, _ = await store.get(f"{znodes.CONFIG_CHANGES}/{change}")
        assert data == (b'{"version":2,"entity_path":"users/CN%3Dann%2C%20O%3Db/clients/a%2A"}')

    run(tmp_path, scenario)


def test_other_settings_of_a_user_stay_and_are_not_shown(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        configs = quotas.harness.configs
        await configs.alter("users", "ann", {"SCRAM-SHA-256": "salt=…"})
        assert await quotas.describe() == []
        await quotas.alter({"user": "ann"}, producer_byte_rate=5.0)
        assert await quotas.describe() == [({"user": "ann"}, {"producer_byte_rate": 5.0})]
        await quotas.alter({"user": "ann"}, producer_byte_rate=None, consumer_byte_rate=None)
        assert await configs.read("users", "ann") == {"SCRAM-SHA-256": "salt=…"}
        assert await quotas.describe() == []

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("entity", "values", "text"),
    [
        ({}, {"producer_byte_rate": 1.0}, "empty client quota entity"),
        ({"team": "x"}, {"producer_byte_rate": 1.0}, "Unhandled client quota entity type: team"),
        ({"user": ""}, {"producer_byte_rate": 1.0}, "Empty user not supported"),
        ({"user": "ann"}, {"planets": 1.0}, "Invalid configuration key planets"),
        ({"user": "ann"}, {"connection_creation_rate": 1.0}, "Invalid configuration key"),
        ({"ip": "10.0.0.1"}, {"producer_byte_rate": 1.0}, "Invalid configuration key"),
        ({"ip": "10.0.0.1", "user": "ann"}, {}, "IP entity should not be used with user"),
        ({"ip": "no address"}, {"connection_creation_rate": 1.0}, "not a valid IP address"),
        ({"user": "ann"}, {"producer_byte_rate": 1.5}, "must be a LONG value"),
        ({"ip": None}, {"connection_creation_rate": 2.0**31}, "must be a INT value"),
        ({"user": "ann"}, {"producer_byte_rate": 1e30}, "must be a LONG value"),
        ({"user": "ann"}, {"producer_byte_rate": -1.0}, "must not be negative"),
        ({"user": "ann"}, {"request_percentage": float("nan")}, "finite"),
    ],
)
def test_refused_alterations(
    tmp_path: Path, entity: Named, values: dict[str, float], text: str
) -> None:
    async def scenario(quotas: Quotas) -> None:
        code, message = await quotas.alter(entity, **values)
        assert code is ErrorCode.INVALID_REQUEST
        assert message is not None and text in message
        assert await quotas.describe() == []

    run(tmp_path, scenario)


def test_values_as_doubles_carry_them(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        largest = 2.0**63  # the largest long, as a double
        values = {"producer_byte_rate": 1024.0000001, "consumer_byte_rate": largest}
        assert (await quotas.alter({"user": "ann"}, **values))[0] is ErrorCode.NONE
        assert await quotas.harness.configs.read("users", "ann") == {
            "producer_byte_rate": "1024",
            "consumer_byte_rate": str(2**63 - 1),
        }

    run(tmp_path, scenario)


def test_entities_fail_by_themselves_and_validation_writes_nothing(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        assert await quotas.alter({"user": "ann"}, validate_only=True, producer_byte_rate=5.0) == (
            ErrorCode.NONE,
            None,
        )
        assert await quotas.describe() == []
        assert quotas.broker.quotas is None
        request = AlterClientQuotasRequest(
            entries=[
                EntryData(
                    entity=[EntityData(entity_type="user", entity_name=name)],
                    ops=[OpData(key=key, value=1.0)],
                )
                for name, key in (
                    ("a", "producer_byte_rate"),
                    ("b", "?"),
                    ("c", "request_percentage"),
                )
            ]
        )
        response = await quotas.ask(0, request, AlterClientQuotasResponse)
        assert [each.error_code for each in response.entries] == [0, ErrorCode.INVALID_REQUEST, 0]
        assert len(await quotas.describe()) == 2

    run(tmp_path, scenario)


def test_who_pretends_to_be_kafka_2_3_does_not_offer_them() -> None:
    assert {48, 49} <= offered_versions("latest").keys()
    for release in ("2.3.0", "1.1.0"):
        assert not {48, 49} & offered_versions(release).keys()


# -- what follows the store -----------------------------------------------------------------------


def test_quotas_are_there_from_the_first_to_the_last(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        broker = quotas.broker
        assert broker.quotas is None
        await quotas.harness.configs.alter("users", "ann", {"SCRAM-SHA-256": "…"})
        assert broker.quotas is None
        await quotas.alter({"client-id": "app"}, producer_byte_rate=5.0)
        assert broker.quotas is not None
        meter = broker.quotas.producing.meter("User:x", "app", 0.0)
        assert meter is not None and meter.limit == 5
        await quotas.alter({"user": "ann", "client-id": "app"}, producer_byte_rate=6.0)
        meter = broker.quotas.producing.meter("User:ann", "app", 0.0)
        assert meter is not None and meter.limit == 6
        await quotas.alter({"client-id": "app"}, producer_byte_rate=None)
        assert broker.quotas is not None
        await quotas.alter({"user": "ann", "client-id": "app"}, producer_byte_rate=None)
        assert broker.quotas is None

    run(tmp_path, scenario)


def test_quotas_of_before_are_loaded_at_the_start(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        harness, broker = quotas.harness, quotas.broker
        await set_all(quotas)
        await harness.configs.alter("clients", "bad", {"producer_byte_rate": "much"})
        broker.quotas = None
        again = ConfigStore(harness.store, harness.clock)
        keeper = QuotaKeeper(broker, again)
        admission = Admission(Limits(), harness.clock)
        keeper.limit_connections(admission)
        await again.start()
        found = broker.quotas
        assert found is not None
        assert len(found.producing.limits) == 3
        assert len(found.consuming.limits) == 3
        assert len(found.requesting.limits) == len(found.mutating.limits) == 1
        assert admission.rate is not None
        assert sum(admission.rate("10.0.0.1") == 0 for _ in range(200)) == 90
        assert sum(admission.rate("10.0.0.2") == 0 for _ in range(2000)) == 990
        await again.stop()

    run(tmp_path, scenario)


def test_static_defaults_are_for_clients_without_quotas(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        found = quotas.broker.quotas
        assert found is not None
        meter = found.producing.meter("User:x", "app", 0.0)
        assert meter is not None and meter.limit == 1000
        assert found.consuming.meter("User:x", "app", 0.0) is None
        await quotas.alter({"client-id": "app"}, producer_byte_rate=5.0)
        await quotas.alter({"client-id": "app"}, producer_byte_rate=None)
        assert quotas.broker.quotas is found

    run(tmp_path, scenario, {"quota.producer.default": "1000"})


def test_the_bandwidth_of_an_instance() -> None:
    assert bandwidths(BrokerConfig(), 3) == (None, None)
    flavoured = BrokerConfig({"instance.flavour": "300", "public.bandwidth.mbits": "24"})
    assert bandwidths(flavoured, 3) == (100_000_000, 1_000_000)
    assert bandwidths(flavoured, 0) == (300_000_000, 3_000_000)
    own = BrokerConfig({"instance.flavour": "300", "instance.bandwidth.bytes": "5000"})
    assert bandwidths(own, 3) == (5_000, None)


def test_the_bandwidth_follows_the_settings(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        broker, configs = quotas.broker, quotas.harness.configs
        assert broker.quotas is None
        await configs.alter("brokers", "<default>", {"instance.flavour": "100"})
        assert broker.quotas is not None and broker.quotas.instance is not None
        await configs.alter("brokers", "<default>", {})
        assert broker.quotas is None

    run(tmp_path, scenario)


# -- partitions -----------------------------------------------------------------------------------


def test_partitions_within_the_quota(tmp_path: Path) -> None:
    async def scenario(quotas: Quotas) -> None:
        await quotas.alter({"client-id": "me"}, controller_mutation_rate=1.0)

        async def create(name: str, version: int, *, only: bool = False) -> tuple[int, int]:
            topic = CreatableTopic(name=name, num_partitions=10, replication_factor=1)
            request = CreateTopicsRequest(topics=[topic], timeout_ms=5_000, validate_only=only)
            response = await quotas.ask(version, request, CreateTopicsResponse)
            return response.topics[0].error_code, response.throttle_time_ms

        assert await create("a", 7, only=True) == (0, 0)
        assert await create("a", 7) == (0, 0)
        assert await create("b", 7) == (0, 0)  # eleven in the bucket, one left: overdrawn by nine
        assert await create("c", 7) == (ErrorCode.THROTTLING_QUOTA_EXCEEDED, 9_000)
        assert await create("c", 7, only=True) == (0, 0)
        assert await create("c", 5) == (0, 19_000)
        grow = CreatePartitionsRequest(
            topics=[CreatePartitionsTopic(name="a", count=12, assignments=None)], timeout_ms=5_000
        )
        response = await quotas.ask(3, grow, CreatePartitionsResponse)
        assert response.results[0].error_code == ErrorCode.THROTTLING_QUOTA_EXCEEDED
        assert response.throttle_time_ms == 19_000
        response = await quotas.ask(2, grow, CreatePartitionsResponse)
        assert (response.results[0].error_code, response.throttle_time_ms) == (0, 21_000)
        delete = DeleteTopicsRequest(topic_names=["a", "nobody"], timeout_ms=5_000)
        deleted = await quotas.ask(5, delete, DeleteTopicsResponse)
        assert [each.error_code for each in deleted.responses] == [
            ErrorCode.THROTTLING_QUOTA_EXCEEDED,
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ]
        quotas.harness.clock.advance(21)
        deleted = await quotas.ask(5, delete, DeleteTopicsResponse)
        assert deleted.responses[0].error_code == 0

    run(tmp_path, scenario)
