"""The service as a process: it listens, reloads, reports its health, and stops on a signal."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import signal
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from exporter.config import Config
from exporter.config.problems import ConfigError
from exporter.service.service import Service
from exporter.service.systemd import Notifier
from exporter.web.app import Reload, build_app
from exporter.web.server.limits import Limits
from exporter.web.server.listener import listen, raise_file_limit
from exporter.web.server.web_config_file import CurrentSettings

log = logging.getLogger(__name__)

STALL = 30.0
"""Seconds for which the event loop may stall before its traceback is written."""

HEARTBEAT = 5.0
"""Seconds between two heartbeats of the event loop."""


@dataclass(frozen=True)
class Listener:
    """Where and what to serve. `addresses`: (host, port), host None: all interfaces.

    `docs_url`: where the files of the project can be read; "": nowhere.
    """

    addresses: tuple[tuple[str | None, int], ...]
    telemetry_path: str
    settings: CurrentSettings
    limits: Limits
    enable_lifecycle: bool
    docs_url: str = ""


class Reloader:
    """Reloads the configuration. `load`: reads it; raises ConfigError."""

    def __init__(self, service: Service, load: Callable[[], Config], notifier: Notifier) -> None:
        self._service = service
        self._load = load
        self._notifier = notifier
        self._lock = asyncio.Lock()
        # Its own thread, because name resolution may block the shared ones.
        self._thread = ThreadPoolExecutor(1, "configuration")
        self._tasks: set[asyncio.Task[None]] = set()

    async def reload(self) -> None:
        """Reload, one at a time. ConfigError: it cannot be used, and nothing has changed."""
        async with self._lock:
            self._notifier.reloading()
            try:
                # Reading a large file must not block polls and scrapes.
                loop = asyncio.get_running_loop()
                loaded = await loop.run_in_executor(self._thread, self._load)
                await self._service.configure(loaded)
            except ConfigError as error:
                self._service.telemetry.set("config_last_reload_successful", 0)
                for problem in error.problems:
                    log.error("configuration not reloaded: %s", problem)
                raise
            else:
                log.info("configuration reloaded")
            finally:
                self._notifier.ready()

    def reload_soon(self) -> None:
        """Reload on a signal. Errors are logged."""
        task = asyncio.ensure_future(self._reload_quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload_quietly(self) -> None:
        with suppress(ConfigError):
            await self.reload()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


@asynccontextmanager
async def serving(
    service: Service, listener: Listener, reload: Reload
) -> AsyncIterator[tuple[str, ...]]:
    """Serve a service's metrics over HTTP; yields the URLs."""
    settings, limits = listener.settings, listener.limits
    raise_file_limit(limits.connections)
    reload_ = reload if listener.enable_lifecycle else None
    path, docs_url = listener.telemetry_path, listener.docs_url
    app = build_app(service, path, settings, limits, reload_, docs_url=docs_url)
    server = await listen(app, listener.addresses, settings, limits)
    try:
        auth = bool(settings().config.basic_auth_users)
        for url in server.urls:
            address = url + listener.telemetry_path
            log.info("listening", extra={"address": address, "basic_auth": auth})
        yield server.urls
    finally:
        await server.close()


async def run(
    service: Service,
    listener: Listener,
    load: Callable[[], Config],
    stop: asyncio.Event,
    on_listening: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> None:
    """Poll and serve until `stop` is set. `load`: reads the configuration again, for a reload."""
    notifier = Notifier()
    reloader = Reloader(service, load, notifier)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reloader.reload_soon)
    async with serving(service, listener, reloader.reload) as urls:
        on_listening(urls)
        notifier.ready()
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("polls", service.run()),
                ("heartbeat", _heartbeat(service, notifier)),
                ("stop", stop.wait()),
            )
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        notifier.stopping()
        faulthandler.cancel_dump_traceback_later()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # polling only ends on an internal error


async def _heartbeat(service: Service, notifier: Notifier) -> None:
    """Report to systemd while polls start; write a traceback if the event loop stalls."""
    interval = min(HEARTBEAT, notifier.watchdog_interval or HEARTBEAT)
    is_frozen = False
    while True:
        faulthandler.dump_traceback_later(STALL)
        if service.problem is None:
            notifier.alive()
        if service.is_ready and not is_frozen:
            # With 10,000 jobs a full garbage collection stops the event loop for a tenth of a
            # second. These objects live long, so later collections leave them out.
            gc.collect()
            gc.freeze()
            is_frozen = True
        await asyncio.sleep(interval)
