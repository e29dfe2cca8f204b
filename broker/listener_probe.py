"""Is every broker reached at the address that clients of a listener are told?

A wrong advertised address is what keeps clients out most often, and the broker that advertises
it does not notice. So one broker resolves and connects to those of all.
"""

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kavka.replication.metadata import BrokerEndpoint, MetadataCache

TIMEOUT_SECONDS: Final = 5.0


class Reached(NamedTuple):
    """One broker's address, and what is wrong with it: None when somebody answers there."""

    broker: int
    host: str
    port: int
    problem: str | None


async def probe(
    metadata: "MetadataCache", listener: str, timeout: float = TIMEOUT_SECONDS
) -> list[Reached]:
    """Try the advertised addresses of a listener, all at once, each for ``timeout`` seconds.

    From this broker: a client may see another network. A broker without the listener has no
    address to try, and says so; two brokers at one address are both wrong.
    """
    tried = await asyncio.gather(
        *(
            _try(broker.id, broker.endpoint(listener), listener, timeout)
            for broker in metadata.brokers.values()
        )
    )
    owners: dict[tuple[str, int], list[int]] = {}
    for each in tried:
        owners.setdefault((each.host, each.port), []).append(each.broker)
    return [
        each._replace(problem=f"brokers {', '.join(map(str, sharing))} have the same address")
        if each.host and len(sharing := owners[each.host, each.port]) > 1
        else each
        for each in tried
    ]


async def _try(
    broker: int, endpoint: "BrokerEndpoint | None", listener: str, timeout: float
) -> Reached:
    if endpoint is None:
        return Reached(broker, "", 0, f"the broker does not have the listener {listener}")
    problem = None
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
            writer.close()
    except TimeoutError:
        problem = f"nobody answers within {timeout:g} s"
    except socket.gaierror as error:
        problem = f"the name cannot be resolved: {error.strerror}"
    except OSError as error:
        problem = os.strerror(error.errno) if error.errno else str(error)
    return Reached(broker, endpoint.host, endpoint.port, problem)
