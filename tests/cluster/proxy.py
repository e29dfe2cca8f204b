"""TCP proxies in front of brokers, by which their connections can be cut."""

import asyncio
import contextlib
import threading
from collections.abc import Mapping
from functools import partial

from tests.broker_process import free_port


class Proxies:
    """One proxy a target, all in one thread. ``ports`` are where they listen."""

    def __init__(self, targets: Mapping[int, int]) -> None:
        """``targets``: by broker id the port behind."""
        self.ports: dict[int, int] = {}
        self._targets = dict(targets)
        self._writers: dict[int, set[asyncio.StreamWriter]] = {each: set() for each in targets}
        self._closed: set[int] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def cut(self, broker_id: int) -> None:
        """Break all connections that lead to a broker, in both directions and at once."""

        def abort() -> None:
            for writer in list(self._writers[broker_id]):
                writer.transport.abort()

        self._loop.call_soon_threadsafe(abort)

    def block(self, broker_id: int) -> None:
        """Cut, and let no connection through any more."""
        self._closed.add(broker_id)
        self.cut(broker_id)

    def unblock(self, broker_id: int) -> None:
        """Let connections through again."""
        self._closed.discard(broker_id)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._ready.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> None:
        for broker_id in self._targets:
            while broker_id not in self.ports:
                port = free_port()
                with contextlib.suppress(OSError):  # somebody else has been faster
                    await asyncio.start_server(partial(self._serve, broker_id), "127.0.0.1", port)
                    self.ports[broker_id] = port

    async def _serve(
        self, broker_id: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if broker_id in self._closed:
            writer.transport.abort()
            return
        try:
            behind = await asyncio.open_connection("127.0.0.1", self._targets[broker_id])
        except OSError:
            writer.transport.abort()
            return
        both = {writer, behind[1]}
        self._writers[broker_id] |= both
        try:
            await asyncio.gather(self._copy(reader, behind[1]), self._copy(behind[0], writer))
        finally:
            self._writers[broker_id] -= both
            for each in both:
                each.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
