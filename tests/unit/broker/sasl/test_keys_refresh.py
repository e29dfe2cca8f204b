"""A set of keys follows its document, and outlives it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kavka.broker.security.sasl.jwks import KeySet
from kavka.storage.clock import ManualClock
from tests.unit.broker.sasl.test_jwt import OTHER_RSA_KEY, document, rsa_entry


def test_an_unknown_key_has_the_document_read_again_but_not_too_often(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(document(rsa_entry()))
    clock = ManualClock()
    keys = KeySet(path.as_uri(), 3600, 10, clock)
    keys.load()

    async def scenario() -> None:
        with ThreadPoolExecutor(1) as executor:
            keys.start(executor)

            async def read() -> list[str | None]:
                keys.look_again()
                if keys._reading is not None:
                    await asyncio.wait((keys._reading,))
                    await asyncio.sleep(0)
                return [key.key_id for key in keys.keys]

            path.write_bytes(document(rsa_entry(), rsa_entry(OTHER_RSA_KEY, kid="new")))
            assert await read() == ["r"]
            clock.advance(10)
            assert await read() == ["r", "new"]
            path.write_bytes(b"half a docu")
            clock.advance(10)
            assert await read() == ["r", "new"]
            path.unlink()
            clock.advance(10)
            assert await read() == ["r", "new"]
            path.write_bytes(document(rsa_entry()))
            clock.advance(10)
            assert await read() == ["r"]
            keys.stop()

    asyncio.run(scenario())
