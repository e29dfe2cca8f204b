"""SaslHandshake: choose a SASL mechanism.

After v0 raw tokens follow on the connection, after v1 SaslAuthenticate requests (KIP-152). Never
flexible.
"""

from kavka.protocol.schema import Message, array, int16, string


class SaslHandshakeRequest(Message, key=17, versions=(0, 1)):
    mechanism: str = string()


class SaslHandshakeResponse(Message, key=17, versions=(0, 1)):
    error_code: int = int16()
    mechanisms: list[str] = array(string)
