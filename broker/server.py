"""A broker from start to stop, and the process around it.

A failing start says in one sentence what to change. The broker says that it is ready when its logs
are recovered, its coordinators loaded and its listeners bound, and not before.
"""

import asyncio
import contextlib
import gc
import logging
import random
import resource
import signal
import sys
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from kavka.broker import logs
from kavka.broker.assembly import Assembly
from kavka.broker.listeners import ListenError
from kavka.broker.network import UnsupportedProtocol
from kavka.config.option import ConfigError
from kavka.replication.registration import RegistrationError
from kavka.replication.store.base import StoreError
from kavka.storage.clock import Clock, SystemClock
from kavka.storage.fs import FileSystem
from kavka.storage.meta import LogDirectoryError

if TYPE_CHECKING:
    from kavka.broker.context import Broker
    from kavka.config.broker import BrokerConfig
    from kavka.config.listeners import Endpoint

log = logging.getLogger("kavka.server")

_GC_THRESHOLDS: Final = (50_000, 50, 1_000)

_EXPECTED: Final = (
    ConfigError,
    ListenError,
    LogDirectoryError,
    RegistrationError,
    StoreError,
    UnsupportedProtocol,
)


class StartupError(Exception):
    """The broker cannot start; the message is one sentence that says what to change."""


class Server:
    """One broker. Owned by the event loop it is started on; started and stopped once."""

    def __init__(
        self,
        config: "BrokerConfig",
        clock: Clock | None = None,
        fs: FileSystem | None = None,
    ) -> None:
        self._assembly = Assembly(
            config, clock or SystemClock(), fs or FileSystem(), random.SystemRandom()
        )

    @property
    def broker(self) -> "Broker":
        """Its parts."""
        return self._assembly.broker

    @property
    def bound(self) -> "list[Endpoint]":
        """Where it listens."""
        return self._assembly.bound

    @property
    def advertised(self) -> "list[Endpoint]":
        """What clients are told of that."""
        return self._assembly.advertised

    @property
    def failed(self) -> asyncio.Event:
        """Set when something is lost without which the broker cannot go on."""
        return self._assembly.failed

    async def start(self) -> None:
        """Build the broker and let clients in.

        Raises StartupError for what the user can change; whatever was built is taken down again.
        """
        try:
            await self._assembly.build()
        except _EXPECTED as error:
            await self._assembly.take_apart()
            raise StartupError(str(error)) from error
        except OSError as error:
            await self._assembly.take_apart()
            what = error.filename or "a file"
            raise StartupError(
                f"Cannot use {what}: {error.strerror or error}; check log.dirs and the rights there"
            ) from error
        except BaseException:
            await self._assembly.take_apart()
            raise

    async def stop(self) -> None:
        """Answer who waits, flush and close the logs, leave the mark of a clean stop."""
        await self._assembly.take_apart()
        log.info("broker stopped broker=%d", self.broker.node_id)


# -- the process ------------------------------------------------------------------------------


def new_event_loop() -> asyncio.AbstractEventLoop:
    """An event loop of uvloop, or asyncio's own where uvloop does not exist."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def run(config: "BrokerConfig") -> int:
    """Be a broker until SIGTERM or SIGINT; the exit status of the process."""
    gc.disable()  # until everything that will stay is there
    logs.set_up(config.get_str("log.level"))
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_serve(config))
    except StartupError as error:
        print(f"kavka: {error}", file=sys.stderr)
    except Exception:
        log.critical("the broker failed", exc_info=True)
    return 1


async def _serve(config: "BrokerConfig") -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, loop, stop, number)
    server = Server(config)
    if not await _unless(stop, server.start()):
        return 0
    # What exists now stays: the collector need not look at it again.
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()
    addresses = ", ".join(map(str, server.bound))
    facts = f"broker={server.broker.node_id} cluster={server.broker.cluster_id}"
    if server.advertised != server.bound:
        facts += f" advertised={','.join(map(str, server.advertised))}"
    with contextlib.suppress(BrokenPipeError):  # whoever read the line may be gone
        print(f"kavka is ready at {addresses} {facts}", flush=True)
    await _unless(stop, server.failed.wait())
    await server.stop()
    return 1 if server.failed.is_set() else 0


def _on_signal(
    loop: asyncio.AbstractEventLoop, stop: asyncio.Event, number: signal.Signals
) -> None:
    log.info("stopping signal=%s", number.name)
    stop.set()
    # Whoever asks a second time does not want to wait for a clean stop.
    loop.remove_signal_handler(number)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Do ``work`` and say True, or False when ``stop`` was set before its end."""
    loop = asyncio.get_running_loop()
    working, stopping = loop.create_task(work), loop.create_task(stop.wait())
    await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working
    return False


def _raise_file_limit() -> None:
    """Connections and segments need descriptors; shells hand out few by default."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
