"""The broker's settings of TLS, SASL, tokens and stored passwords: Kafka 2.3's table.

Those that can change while the broker runs do so only per listener, under the prefix
``listener.name.<listener>.`` (KIP-226).
"""

import re
from typing import Final, TypeAlias

from kavka.config.broker_table import (
    BOOLEAN,
    BROKER,
    CLASS,
    DOUBLE,
    FIXED,
    HIGH,
    INT,
    LIST,
    LONG,
    LOW,
    MEDIUM,
    NO_JAVA_CLASS,
    PRINCIPALS,
    SHORT,
    STRING,
)
from kavka.config.option import (
    AT_LEAST_0,
    AT_LEAST_1,
    ConfigType,
    Dynamic,
    Importance,
    ListOf,
    OneOf,
    Option,
    Pattern,
    Range,
    Validator,
    Value,
)

_Row: TypeAlias = tuple[str, ConfigType, Value, Validator | None, Importance, Dynamic, str]

PASSWORD: Final = ConfigType.PASSWORD
MECHANISMS: Final = ListOf("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
PASSWORD_MECHANISMS: Final = OneOf("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_OAUTH_CLASSES: Final = "org.apache.kafka.common.security.oauthbearer"
SIGNED_TOKENS: Final = (
    f"{_OAUTH_CLASSES}.OAuthBearerValidatorCallbackHandler",
    f"{_OAUTH_CLASSES}.secured.OAuthBearerValidatorCallbackHandler",
)
UNSECURED_TOKENS: Final = (
    f"{_OAUTH_CLASSES}.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
)
TOKEN_VALIDATORS: Final = Pattern(
    "|".join(re.escape(name) for name in ("", *SIGNED_TOKENS, UNSECURED_TOKENS)),
    "empty, or Kafka's class that checks OAUTHBEARER tokens",
    "this broker cannot load Java classes, but it checks tokens as Kafka's own classes do: set "
    f"{{name}} to {SIGNED_TOKENS[0]}, or leave it unset",
)
TRUE_OR_FALSE: Final = Pattern("(?i:true|false)", "true or false", "it must be true or false")

# fmt: off
_ROWS: Final[tuple[_Row, ...]] = (
    # TLS
    ("ssl.keystore.location", STRING, None, None, MEDIUM, BROKER,
     "File with the broker's key and certificate."),
    ("ssl.keystore.password", PASSWORD, None, None, MEDIUM, BROKER,
     "Password of the key store."),
    ("ssl.keystore.type", STRING, "JKS", None, MEDIUM, BROKER,
     "Format of the key store."),
    ("ssl.key.password", PASSWORD, None, None, MEDIUM, BROKER,
     "Password of the key in the key store."),
    ("ssl.truststore.location", STRING, None, None, MEDIUM, BROKER,
     "File with the certificates that are trusted."),
    ("ssl.truststore.password", PASSWORD, None, None, MEDIUM, BROKER,
     "Password of the trust store."),
    ("ssl.truststore.type", STRING, "JKS", None, MEDIUM, BROKER,
     "Format of the trust store."),
    ("ssl.client.auth", STRING, "none", OneOf("required", "requested", "none"), MEDIUM, BROKER,
     "Whether clients must show a certificate."),
    ("ssl.enabled.protocols", LIST, ("TLSv1.2", "TLSv1.3"), None, MEDIUM, BROKER,
     "TLS versions that are accepted: TLSv1.2, TLSv1.3; older ones never are."),
    ("ssl.protocol", STRING, "TLS", None, MEDIUM, BROKER,
     "Kind of the TLS context."),
    ("ssl.cipher.suites", LIST, (), None, MEDIUM, BROKER,
     "Cipher suites that are accepted; empty is all usual ones."),
    ("ssl.endpoint.identification.algorithm", STRING, "https", None, LOW, BROKER,
     "How the name in another broker's certificate is checked; empty is not at all."),
    ("ssl.principal.mapping.rules", LIST, ("DEFAULT",), None, LOW, FIXED,
     "Rules that make a user name out of a certificate's distinguished name (KIP-371)."),

    # SASL
    ("sasl.enabled.mechanisms", LIST, ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"), MECHANISMS,
     MEDIUM, BROKER,
     "SASL mechanisms that are offered."),
    ("sasl.mechanism.inter.broker.protocol", STRING, "SCRAM-SHA-512", PASSWORD_MECHANISMS, MEDIUM,
     BROKER,
     "SASL mechanism between brokers; name and password come from the mechanism's JAAS line."),
    ("sasl.jaas.config", PASSWORD, None, None, MEDIUM, BROKER,
     "Users of a mechanism and the broker's own, in the form of a JAAS line."),
    ("connections.max.reauth.ms", LONG, 0, None, MEDIUM, FIXED,
     "Longest session of an authenticated connection; 0 is no limit (KIP-368)."),
    ("sasl.login.refresh.window.factor", DOUBLE, 0.8, None, MEDIUM, BROKER,
     "Part of a credential's life after which it is renewed."),
    ("sasl.login.refresh.window.jitter", DOUBLE, 0.05, None, MEDIUM, BROKER,
     "Random part added to that."),
    ("sasl.login.refresh.min.period.seconds", SHORT, 60, None, MEDIUM, BROKER,
     "Shortest time between two renewals."),
    ("sasl.login.refresh.buffer.seconds", SHORT, 300, None, MEDIUM, BROKER,
     "Time before expiry that a renewal keeps free."),

    # Users and plug-ins
    ("principal.builder.class", CLASS, None, NO_JAVA_CLASS, MEDIUM, BROKER,
     "Plug-in that makes principals."),
    ("sasl.client.callback.handler.class", CLASS, None, NO_JAVA_CLASS, MEDIUM, FIXED,
     "Plug-in for SASL towards other brokers."),
    ("sasl.server.callback.handler.class", CLASS, None, TOKEN_VALIDATORS, MEDIUM, FIXED,
     "How tokens of OAUTHBEARER are checked: by the name of Kafka's class that checks signed ones, "
     "or of that for unsecured ones, which anybody can make: for tests alone."),
    ("sasl.login.callback.handler.class", CLASS, None, NO_JAVA_CLASS, MEDIUM, FIXED,
     "Plug-in for the broker's own login."),
    ("sasl.login.class", CLASS, None, NO_JAVA_CLASS, MEDIUM, FIXED,
     "Plug-in for the broker's own login."),

    # Delegation tokens
    ("delegation.token.master.key", PASSWORD, None, None, MEDIUM, FIXED,
     "Secret that tokens are made with, the same on all brokers; unset: no tokens."),
    ("delegation.token.max.lifetime.ms", LONG, 604800000, AT_LEAST_1, MEDIUM, FIXED,
     "Longest life of a token, renewals included."),
    ("delegation.token.expiry.time.ms", LONG, 86400000, AT_LEAST_1, MEDIUM, FIXED,
     "Life of a token until it must be renewed."),
    ("delegation.token.expiry.check.interval.ms", LONG, 3600000, AT_LEAST_1, LOW, FIXED,
     "How often tokens are looked over for expiry."),

    # Passwords in the metadata store
    ("password.encoder.secret", PASSWORD, None, None, MEDIUM, FIXED,
     "Secret that dynamic passwords are encrypted with in the metadata store."),
    ("password.encoder.old.secret", PASSWORD, None, None, MEDIUM, FIXED,
     "The secret before this one, while it is being changed."),
    ("password.encoder.keyfactory.algorithm", STRING, None, None, LOW, FIXED,
     "How the key is made from the secret; unset: PBKDF2WithHmacSHA512."),
    ("password.encoder.cipher.algorithm", STRING, "AES/CBC/PKCS5Padding", None, LOW, FIXED,
     "Cipher of stored passwords."),
    ("password.encoder.key.length", INT, 128, Range(8), LOW, FIXED,
     "Bits of its key."),
    ("password.encoder.iterations", INT, 4096, Range(1024), LOW, FIXED,
     "Rounds of making the key."),

    # Settings of the authorizer, which Kafka's own table does not have
    ("super.users", ConfigType.UNKNOWN, None, PRINCIPALS, HIGH, FIXED,
     "Users that may do everything, as User:name separated by semicolons."),
    ("allow.everyone.if.no.acl.found", ConfigType.UNKNOWN, None, TRUE_OR_FALSE, HIGH, FIXED,
     "Whether a resource without ACLs is open to everybody."),
)

_OAUTH_ROWS: Final[tuple[_Row, ...]] = (
    ("sasl.oauthbearer.jwks.endpoint.url", STRING, None, None, MEDIUM, FIXED,
     "Where the public keys are that tokens are checked with: file:// or https:// and the rest of "
     "the address of a JWKS document."),
    ("sasl.oauthbearer.jwks.endpoint.refresh.ms", LONG, 3600000, AT_LEAST_1, LOW, FIXED,
     "How often that document is read."),
    ("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", LONG, 100, AT_LEAST_1, LOW, FIXED,
     "Least time until a token with an unknown key may have it read again."),
    ("sasl.oauthbearer.expected.audience", LIST, (), None, LOW, FIXED,
     "Audiences one of which a token must be for; empty: any."),
    ("sasl.oauthbearer.expected.issuer", STRING, None, None, LOW, FIXED,
     "Who must have issued a token; unset: anybody whose key is known."),
    ("sasl.oauthbearer.sub.claim.name", STRING, "sub", None, LOW, FIXED,
     "The claim of a token that names the user."),
    ("sasl.oauthbearer.scope.claim.name", STRING, "scope", None, LOW, FIXED,
     "The claim of a token that lists its scopes."),
    ("sasl.oauthbearer.clock.skew.seconds", INT, 30, AT_LEAST_0, LOW, FIXED,
     "How far the clocks of issuer and broker may be apart."),
)

_OWN_ROWS: Final[tuple[_Row, ...]] = (
    ("sasl.plain.stored.users", BOOLEAN, True, None, MEDIUM, FIXED,
     "Whether PLAIN also lets users of the metadata store in (those of kafka-configs and kavka "
     "users), not only those of the JAAS line."),
    ("sasl.sessions.end.with.password", BOOLEAN, False, None, MEDIUM, FIXED,
     "Whether connections of a user of the metadata store are closed when the password is changed "
     "or taken away; otherwise only new ones need the new password."),
)

# Keys and certificates as PEM text (KIP-651).
_PEM_ROWS: Final[tuple[_Row, ...]] = (
    ("ssl.keystore.key", PASSWORD, None, None, MEDIUM, BROKER,
     "The broker's private key as PEM text; ssl.key.password opens it when it is encrypted."),
    ("ssl.keystore.certificate.chain", PASSWORD, None, None, MEDIUM, BROKER,
     "Certificate of that key as PEM text, followed by those that issued it."),
    ("ssl.truststore.certificates", PASSWORD, None, None, MEDIUM, BROKER,
     "Certificates that are trusted as PEM text."),
)

# Java's own security machinery and Kerberos.
_INEFFECTIVE_ROWS: Final[tuple[_Row, ...]] = (
    ("ssl.provider", STRING, None, None, MEDIUM, BROKER,
     "Java's provider of TLS."),
    ("ssl.keymanager.algorithm", STRING, "SunX509", None, MEDIUM, BROKER,
     "Java's key manager."),
    ("ssl.trustmanager.algorithm", STRING, "PKIX", None, MEDIUM, BROKER,
     "Java's trust manager."),
    ("ssl.secure.random.implementation", STRING, None, None, LOW, BROKER,
     "Java's source of randomness for TLS."),
    ("sasl.kerberos.service.name", STRING, None, None, MEDIUM, BROKER,
     "Kerberos principal of the broker; the GSSAPI mechanism is not offered."),
    ("sasl.kerberos.kinit.cmd", STRING, "/usr/bin/kinit", None, MEDIUM, BROKER,
     "Path of kinit; the GSSAPI mechanism is not offered."),
    ("sasl.kerberos.ticket.renew.window.factor", DOUBLE, 0.8, None, MEDIUM, BROKER,
     "Renewal of Kerberos tickets; the GSSAPI mechanism is not offered."),
    ("sasl.kerberos.ticket.renew.jitter", DOUBLE, 0.05, None, MEDIUM, BROKER,
     "Renewal of Kerberos tickets; the GSSAPI mechanism is not offered."),
    ("sasl.kerberos.min.time.before.relogin", LONG, 60000, None, MEDIUM, BROKER,
     "Renewal of Kerberos tickets; the GSSAPI mechanism is not offered."),
    ("sasl.kerberos.principal.to.local.rules", LIST, ("DEFAULT",), None, MEDIUM, BROKER,
     "User names of Kerberos principals; the GSSAPI mechanism is not offered."),
)
# fmt: on

OPTIONS: Final[tuple[Option, ...]] = (
    *(Option(*row) for row in _ROWS),
    *(Option(*row, since="2.7") for row in _PEM_ROWS),
    *(Option(*row, since="3.1") for row in _OAUTH_ROWS),
    *(Option(*row, since="kavka") for row in _OWN_ROWS),
    *(Option(*row, effective=False) for row in _INEFFECTIVE_ROWS),
)
"""The static table of TLS, SASL, tokens and stored passwords."""

SECURITY_OPTIONS: Final[frozenset[str]] = frozenset(
    option.name
    for option in OPTIONS
    if option.dynamic is BROKER and option.name.startswith(("ssl.", "sasl."))
) | {"principal.builder.class", "allowed.principals"}
"""What can change while the broker runs, but only under a listener's prefix."""
