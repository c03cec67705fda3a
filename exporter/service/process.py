"""The service as a process: it listens, reloads, notifies systemd, and stops on a signal."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from exporter.config import Config
from exporter.config.problems import ConfigError
from exporter.service import logs, systemd
from exporter.service.service import Service
from exporter.service.supervision import supervised
from exporter.web.app import build_app
from exporter.web.server.limits import Limits
from exporter.web.server.listener import Address, listen
from exporter.web.server.web_config_file import CurrentSettings

log = logging.getLogger(__name__)

STALL = 30.0
"""Seconds for which the event loop may stand still before a traceback of it is written."""

LONGEST_END = 4.0
"""Seconds from a signal to the end of the process at most; the log may take one more."""

HEARTBEAT = 5.0
"""Seconds between two signs of life of the event loop."""


@dataclass(frozen=True)
class Listener:
    """Where and what to serve.

    `allowed_hosts`: host names by which clients may ask; empty: all. `docs_url`: where the files of
    the project can be read; "": nowhere. `read_settings_again`: for a reload; raises ConfigError.
    """

    addresses: tuple[Address, ...]
    telemetry_path: str
    settings: CurrentSettings
    limits: Limits
    enable_lifecycle: bool
    allowed_hosts: tuple[str, ...] = ()
    docs_url: str = ""
    read_settings_again: Callable[[], None] = lambda: None


class Reloader:
    """Reloads both configurations.

    `load`: reads that of the service. `read_settings_again`: takes over that of the web server.
    Both raise ConfigError.
    """

    def __init__(
        self,
        service: Service,
        load: Callable[[], Config],
        read_settings_again: Callable[[], None] = lambda: None,
    ) -> None:
        self._service = service
        self._load = load
        self._read_settings_again = read_settings_again
        self._lock = asyncio.Lock()
        # A thread of its own: what else runs in threads may hang, as name resolution does.
        self._thread = ThreadPoolExecutor(1, "configuration")

    async def reload(self) -> None:
        """Reload all of it. ConfigError: it is invalid, and nothing changed."""
        async with self._lock:
            systemd.notify(systemd.RELOADING.format(time.monotonic_ns() // 1000))
            problems: tuple[str, ...] = ("an internal error",)
            try:
                # A large file takes a while. Polls and scrapes go on.
                loop = asyncio.get_running_loop()
                loaded = await loop.run_in_executor(self._thread, self._load)
                self._read_settings_again()
                await self._service.configure(loaded)
            except ConfigError as error:
                self._service.telemetry.set("config_last_reload_successful", 0)
                problems = error.problems
                for problem in problems:
                    log.error("configuration not reloaded: %s", problem)
                raise
            else:
                problems = ()
                log.info("configuration reloaded")
            finally:
                systemd.notify(systemd.reloaded(problems))

    async def reload_whenever(self, asked: asyncio.Event) -> None:
        """Reload each time that `asked` is set."""
        while True:
            await asked.wait()
            asked.clear()
            with suppress(ConfigError):  # it is in the log
                await self.reload()


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(*_: object) -> None:
        loop.call_soon_threadsafe(stop.set)
        timer = threading.Timer(LONGEST_END, _leave)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)  # not the loop's own, which a loop that stands still loses
    return stop


def _leave() -> None:
    """End the process, whatever still waits: a disk, a thread, a client.

    Nothing is lost that was ever exposed: that is saved before.
    """
    log.error("did not end within %g s of a signal, and is ended: something hangs", LONGEST_END)
    logging.shutdown()
    os._exit(1)


async def run(
    service: Service,
    listener: Listener,
    load: Callable[[], Config],
    stop: asyncio.Event,
    on_listening: Callable[[tuple[str, ...]], None] = lambda _: None,
) -> None:
    """Poll and serve until `stop` is set. `load`: reads the configuration again, for a reload."""
    reloader = Reloader(service, load, listener.read_settings_again)
    hangup = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    settings, limits, path = listener.settings, listener.limits, listener.telemetry_path
    reload = reloader.reload if listener.enable_lifecycle else None
    app = build_app(
        *(service, path, settings, limits, reload),
        docs_url=listener.docs_url,
        allowed_hosts=listener.allowed_hosts,
    )
    server = await listen(app, listener.addresses, settings, limits)
    try:
        auth = bool(settings().config.basic_auth_users)
        for url in server.urls:
            address = url if url.startswith("unix:") else url + path
            log.info("listening", extra={"address": address, "basic_auth": auth})
        on_listening(server.urls)
        systemd.notify(systemd.READY)
        reload_whenever = partial(reloader.reload_whenever, hangup)
        on_error = partial(service.telemetry.add, "internal_errors_total", 1)
        tasks = [
            asyncio.create_task(work, name=name)
            for name, work in (
                ("polls", service.run()),
                ("reloads", supervised("reloads", reload_whenever, on_error)),
                ("heartbeat", _heartbeat(service)),
                ("stop", stop.wait()),
            )
        ]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        systemd.notify(systemd.STOPPING)
        faulthandler.cancel_dump_traceback_later()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()  # polling ends by itself only by a defect
    finally:
        await service.close()
        await service.settle()  # what was counted is saved before clients are waited for
        await server.close()


async def _heartbeat(service: Service) -> None:
    """Notify systemd while the event loop runs and polls begin; write a traceback if it stalls."""
    interval = min(HEARTBEAT, systemd.watchdog_interval() or HEARTBEAT)
    is_frozen = False
    traces = _unblocked_stderr()
    while True:
        faulthandler.dump_traceback_later(STALL, file=traces)
        service.telemetry.set("log_lines_dropped_total", logs.dropped())
        if service.problem is None:
            systemd.notify(systemd.ALIVE)
        if service.is_ready and not is_frozen:
            # With 10,000 jobs a full garbage collection stops the event loop for a tenth of a
            # second. These objects live long, so later collections leave them out.
            gc.collect()
            gc.freeze()
            is_frozen = True
        await asyncio.sleep(interval)


def _unblocked_stderr() -> int:
    """Standard error, opened anew so that a traceback that nobody reads is cut and holds nobody.

    Itself where that cannot be: a socket, such as systemd's journal, or one of another user.
    """
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{sys.stderr.fileno()}", flags)
    except OSError:
        return sys.stderr.fileno()
