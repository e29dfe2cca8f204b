"""Overrides of a broker as they are stored: secrets among them are encrypted."""

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kavka.config.dynamic import dynamic_option
from kavka.config.option import ConfigError

if TYPE_CHECKING:
    from kavka.config.broker import BrokerConfig

log = logging.getLogger("kavka.config")


def is_secret(name: str) -> bool:
    """Whether a setting's value is stored encrypted."""
    option = dynamic_option(name)
    return option is not None and option.sensitive


def sealed(config: "BrokerConfig", overrides: Mapping[str, str]) -> dict[str, str]:
    """The overrides as they are to be stored. *Blocks* some ms for each secret.

    Raises ConfigError where there is no ``password.encoder.secret``, or settings of no cipher.
    """
    stored = dict(overrides)
    names = [name for name in overrides if is_secret(name)]
    if not names:
        return stored
    from kavka.broker.security.password_encoder import PasswordError, encoder_of

    encoder = encoder_of(config, os.urandom)
    if encoder is None:
        raise ConfigError(
            names[0],
            f"{names[0]} holds a secret: set password.encoder.secret in server.properties, so that "
            "it can be kept encrypted",
        )
    for name in names:
        try:
            stored[name] = encoder.encode(overrides[name])
        except PasswordError as error:
            raise ConfigError(name, f"{name} cannot be encrypted: {error}") from None
    return stored


def opened(config: "BrokerConfig", stored: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """The overrides that stand in the store, and whether one is encrypted with the old secret.

    What cannot be decrypted is left out, with a line in the log. *Blocks* some ms for each secret.
    """
    overrides = dict(stored)
    names = [name for name in stored if is_secret(name)]
    if not names:
        return overrides, False
    from kavka.broker.security.password_encoder import PasswordError, encoder_of, old_encoder_of

    encoders = [encoder_of(config, os.urandom), old_encoder_of(config, os.urandom)]
    old = False
    for name in names:
        reason = "password.encoder.secret is not set"
        for encoder in encoders:
            if encoder is None:
                continue
            try:
                overrides[name] = encoder.decode(stored[name])
            except PasswordError as error:
                reason = str(error)
            else:
                old = old or encoder is encoders[1]
                break
        else:
            del overrides[name]
            log.error("A stored secret is ignored: %s name=%s", reason, name)
    return overrides, old
