"""A broker inside the caller's process, in a thread of its own: for tests and small tools."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final

from kavka.config.broker import BrokerConfig

START_SECONDS: Final = 60.0
_DEFAULTS: Final = {"listeners": "PLAINTEXT://127.0.0.1:0"}


class EmbeddedBroker:
    """A whole broker on a free port of 127.0.0.1.

    ::

        with EmbeddedBroker() as broker:
            producer = KafkaProducer(bootstrap_servers=broker.bootstrap)

    ``settings`` are those of ``server.properties``. Without ``data_dir`` the data lies in a
    temporary directory that is removed at the end; with it, the next broker finds it again.
    The caller's logging, signals and garbage collection are left alone.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, data_dir: str | None = None
    ) -> None:
        self._settings = {**_DEFAULTS, **(settings or {})}
        self._data_dir = data_dir
        self._temporary: str | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._addresses: dict[str, str] = {}

    @property
    def bootstrap(self) -> str:
        """``host:port`` of the first listener, as clients want it in ``bootstrap.servers``."""
        assert self._addresses, "the broker has not been started"
        return next(iter(self._addresses.values()))

    @property
    def addresses(self) -> Mapping[str, str]:
        """``host:port`` by listener name."""
        return self._addresses

    def start(self) -> "EmbeddedBroker":
        """Start; returns when clients can connect.

        Raises ConfigError for settings that cannot be, StartupError for what stands in the way.
        """
        assert self._thread is None, "the broker runs already"
        directory = self._data_dir
        if directory is None:
            directory = self._temporary = tempfile.mkdtemp(prefix="kavka-")
        try:
            config = BrokerConfig({"log.dirs": directory, **self._settings})
            self._ready.clear()
            self._failure = None
            self._thread = threading.Thread(
                target=self._run, args=(config,), name="kavka-broker", daemon=True
            )
            self._thread.start()
            if not self._ready.wait(START_SECONDS):
                raise TimeoutError(f"the broker was not ready after {START_SECONDS:.0f} s")
            if self._failure is not None:
                raise self._failure
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop cleanly; without effect when the broker does not run."""
        thread, self._thread = self._thread, None
        if thread is not None:
            loop, stop = self._loop, self._stop
            if loop is not None and stop is not None and thread.is_alive():
                loop.call_soon_threadsafe(stop.set)
            thread.join()
        was_ready, self._addresses = bool(self._addresses), {}
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
        if was_ready and self._failure is not None:
            raise self._failure

    def __enter__(self) -> "EmbeddedBroker":
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self, config: BrokerConfig) -> None:
        # The broker is imported in its thread: a test session that never uses it pays nothing.
        from kavka.broker.server import new_event_loop

        try:
            with asyncio.Runner(loop_factory=new_event_loop) as runner:
                runner.run(self._serve(config))
        except BaseException as error:
            self._failure = error
        finally:
            self._ready.set()

    async def _serve(self, config: BrokerConfig) -> None:
        from kavka.broker.server import Server

        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = Server(config)
        await server.start()
        try:
            self._addresses = {
                endpoint.name: f"{endpoint.host}:{endpoint.port}" for endpoint in server.advertised
            }
            self._ready.set()
            await self._stop.wait()
        finally:
            await server.stop()
