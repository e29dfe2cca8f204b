"""The table of API keys beside the declared messages."""

import pkgutil

import pytest

import kavka.protocol.messages
from kavka.protocol import keys
from kavka.protocol.schema import NEWEST


def declared() -> list[int]:
    modules = pkgutil.iter_modules(kavka.protocol.messages.__path__)
    return [int(module.name[1:3]) for module in modules if module.name[1:3].isdigit()]


@pytest.mark.parametrize("key", declared())
def test_declared_messages_agree_with_the_table(key: int) -> None:
    api = keys.APIS[key]
    for cls in keys.message_classes(key):
        assert key == cls.API_KEY
        flexible = cls.FLEXIBLE_SINCE if cls.FLEXIBLE_SINCE <= NEWEST else None
        assert flexible == api.flexible_since
        for offered in (api.in_1_1, api.in_2_3, api.in_3_9):
            if offered is not None:
                assert offered[0] >= cls.MIN_VERSION
                assert offered[1] <= cls.MAX_VERSION


def test_a_2_3_broker_lists_every_key_up_to_44_from_version_0() -> None:
    assert sorted(keys.RANGES_2_3) == list(range(45))
    assert all(low == 0 for low, _ in keys.RANGES_2_3.values())
    assert keys.RANGES_2_3[0] == (0, 7)
    assert keys.RANGES_2_3[18] == (0, 2)


def test_columns_grow_with_the_releases() -> None:
    assert sorted(keys.RANGES_1_1) == list(range(43))
    for key, (_, newest) in keys.RANGES_1_1.items():
        assert newest <= keys.RANGES_2_3[key][1] <= keys.LATEST[key][1]


def test_names() -> None:
    assert keys.api_name(4) == "LeaderAndIsr"
    assert keys.module_name(4) == "k04_leader_and_isr"
    assert keys.module_name(50) == "k50_describe_user_scram_credentials"
    assert keys.api_name(999) == "unknown(999)"


@pytest.mark.parametrize("key", [52, 76, 999])
def test_keys_without_messages(key: int) -> None:
    with pytest.raises(KeyError):
        keys.message_classes(key)
