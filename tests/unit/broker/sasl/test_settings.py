"""What settings say of SASL, and what is wrong with them."""

import pytest

from kavka.broker.security.sasl import settings
from kavka.config.broker import BrokerConfig
from kavka.config.option import ConfigError
from kavka.config.security_table import SIGNED_TOKENS, UNSECURED_TOKENS

PLAIN_MODULE = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM_MODULE = "org.apache.kafka.common.security.scram.ScramLoginModule"


def config(**given: str) -> BrokerConfig:
    return BrokerConfig({name.replace("__", "-").replace("_", "."): v for name, v in given.items()})


def test_mechanisms_of_a_listener() -> None:
    plain = config(listener_name_x_sasl_enabled_mechanisms="PLAIN,PLAIN")
    assert settings.enabled_mechanisms(plain, "X") == ["PLAIN"]
    assert settings.enabled_mechanisms(plain, "OTHER") == [
        "PLAIN",
        "SCRAM-SHA-256",
        "SCRAM-SHA-512",
    ]
    with pytest.raises(ConfigError, match="is empty"):
        settings.enabled_mechanisms(config(sasl_enabled_mechanisms=""), "X")
    with pytest.raises(ConfigError, match="String must be one of"):
        config(sasl_enabled_mechanisms="GSSAPI")


def test_the_jaas_line_of_a_mechanism() -> None:
    given = config(
        listener_name_x_plain_sasl_jaas_config=f'{PLAIN_MODULE} required user_a="1";',
        listener_name_x_sasl_jaas_config=f'{SCRAM_MODULE} required username="b" password="2";',
    )
    entry = settings.jaas_entry(given, "X", "PLAIN")
    assert entry is not None and entry.users == {"a": "1"}
    entry = settings.jaas_entry(given, "X", "SCRAM-SHA-256")
    assert entry is not None and entry.options["username"] == "b"
    assert settings.jaas_entry(given, "Y", "PLAIN") is None
    assert settings.jaas_entry(given, "X", "OAUTHBEARER") is None  # the line is not for it


def test_a_jaas_line_of_another_mechanism() -> None:
    given = config(listener_name_x_plain_sasl_jaas_config=f'{SCRAM_MODULE} required user_a="s3";')
    with pytest.raises(ConfigError, match=r"needs org\..*PlainLoginModule") as error:
        settings.jaas_entry(given, "X", "PLAIN")
    assert "s3" not in error.value.message


def test_a_mistyped_jaas_line_is_not_quoted() -> None:
    given = config(listener_name_x_plain_sasl_jaas_config=f'{PLAIN_MODULE} required user_a="s3"')
    with pytest.raises(ConfigError, match="semicolon") as error:
        settings.jaas_entry(given, "X", "PLAIN")
    assert "s3" not in error.value.message


def test_the_brokers_own_login() -> None:
    line = f'{PLAIN_MODULE} required username="b" password="2" user_b="2";'
    given = config(listener_name_x_plain_sasl_jaas_config=line)
    login = settings.login(given, "X", "PLAIN")
    assert login == settings.Login("b", "2")
    assert "2" not in repr(login)
    with pytest.raises(ConfigError, match=r"listener.name.x.scram-sha-512.sasl.jaas.config must"):
        settings.login(given, "X", "SCRAM-SHA-512")


def test_how_long_sessions_last() -> None:
    given = config(
        connections_max_reauth_ms="5",
        listener_name_x_connections_max_reauth_ms="6",
        listener_name_x_oauthbearer_connections_max_reauth_ms="7",
    )
    assert settings.max_session_ms(given, "Y", "PLAIN") == 5
    assert settings.max_session_ms(given, "X", "PLAIN") == 6
    assert settings.max_session_ms(given, "X", "OAUTHBEARER") == 7


def test_tokens_need_keys_or_the_word_that_they_do_not() -> None:
    with pytest.raises(ConfigError, match=r"needs sasl.oauthbearer.jwks.endpoint.url"):
        settings.token_settings(config(), "X")
    signed = settings.token_settings(
        config(
            sasl_oauthbearer_jwks_endpoint_url="file:///keys",
            sasl_oauthbearer_expected_audience="a, b",
            listener_name_x_sasl_oauthbearer_expected_issuer="me",
            sasl_server_callback_handler_class=SIGNED_TOKENS[1],
        ),
        "X",
    )
    assert signed.keys_url == "file:///keys"
    assert signed.rules.audiences == ("a", "b")
    assert (signed.rules.issuer, signed.rules.skew_ms) == ("me", 30_000)
    module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule"
    unsecured = settings.token_settings(
        config(
            listener_name_x_oauthbearer_sasl_server_callback_handler_class=UNSECURED_TOKENS,
            sasl_oauthbearer_jwks_endpoint_url="file:///keys",
            sasl_jaas_config=f'{module} required unsecuredValidatorRequiredScope="a b" '
            'unsecuredValidatorPrincipalClaimName="name" '
            'unsecuredValidatorAllowableClockSkewMs="7";',
        ),
        "X",
    )
    assert unsecured.keys_url is None
    assert unsecured.rules.required_scopes == ["a", "b"]
    assert (unsecured.rules.subject_claim, unsecured.rules.skew_ms) == ("name", 7)


def test_other_handlers_are_no_java_to_be_loaded() -> None:
    with pytest.raises(ConfigError, match="cannot load Java classes"):
        config(sasl_server_callback_handler_class="com.example.Mine")


def test_brokers_log_in_where_their_listener_wants_it() -> None:
    assert settings.inter_broker_handshake(config()) is None
    given = {
        "listeners": "B://:9091",
        "listener_security_protocol_map": "B:SASL_PLAINTEXT",
        "inter_broker_listener_name": "B",
        "sasl_mechanism_inter_broker_protocol": "PLAIN",
    }
    with pytest.raises(ConfigError, match=r"listener.name.b.plain.sasl.jaas.config must give"):
        settings.inter_broker_handshake(config(**given))
    line = f'{PLAIN_MODULE} required username="b" password="2";'
    whole = config(**given, listener_name_b_plain_sasl_jaas_config=line)
    assert settings.inter_broker_handshake(whole) is not None
