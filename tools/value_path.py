"""Prints the functions that a task count passes from the response's bytes to the scrape's body.

The real `run` polls a stand-in of the service with one job, while a profiler looks into every
function of `exporter` that returns. A function counts where its return value, an argument or
another of its local variables is the value, or a record, row or text that holds it. Comprehensions,
validators and number formatting do not count, nor do the web server's functions: they come after
the body.

usage: python -m tools.value_path [--state-file] [--package DIR]
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import json
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

VALUE = 7_654_321
"""The running tasks of the job: a number that nothing else is."""

KEY_VARIABLE = "VALUE_PATH_KEY"
LISTEN = "127.0.0.1"
NOT_COUNTED = frozenset({"format_value", "<listcomp>", "<genexpr>", "<dictcomp>", "<setcomp>"})
MAX_DEPTH = 8


class Service(BaseHTTPRequestHandler):
    """A Batch account with one job, which answers in gzip as the service does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        status, body = 200, json.dumps(answer(path)).encode()
        if path.endswith("taskstatus"):
            status, body = 409, b'{"code":"JobPreparationTaskNotSpecified"}'
        body = gzip.compress(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def answer(path: str) -> Mapping[str, Any]:
    """What the account answers to a path."""
    if path == "/jobs":
        job = {"id": "job-1", "state": "active", "creationTime": "2099-01-01T00:00:00Z"}
        return {"value": [job]}
    if path.endswith("/taskcounts"):
        counts = {"active": 1, "running": VALUE, "completed": 5, "succeeded": 3, "failed": 2}
        slots = {name: number + 1 for name, number in counts.items()}
        return {"taskCounts": counts, "taskSlotCounts": slots}
    return {"value": []}


class Trace:
    """Notes each function of a package that holds the value, in the order of the first time."""

    def __init__(self, package: Path) -> None:
        self._package = f"{package}{os.sep}"
        self._web = f"{package / 'web'}{os.sep}"
        self.functions: dict[CodeType, None] = {}

    def __call__(self, frame: FrameType, event: str, result: object) -> None:
        code = frame.f_code
        if event != "return" or code in self.functions or code.co_name in NOT_COUNTED:
            return
        if not code.co_filename.startswith(self._package) or code.co_filename.startswith(self._web):
            return
        if holds(result) or any(map(holds, frame.f_locals.values())):
            self.functions[code] = None

    def lines(self) -> list[str]:
        """One for each function: file, line and name."""
        root = Path(self._package).parent
        return [
            f"{Path(code.co_filename).relative_to(root)}:{code.co_firstlineno} {code.co_qualname}"
            for code in self.functions
        ]


def holds(value: object, depth: int = 0) -> bool:
    """Whether something is the value, or a record, row or text that holds it."""
    if isinstance(value, int | float):
        return value == VALUE
    if isinstance(value, str | bytes | bytearray):
        return in_text(value.encode() if isinstance(value, str) else bytes(value))
    return depth < MAX_DEPTH and any(holds(each, depth + 1) for each in parts_of(value))


def in_text(text: bytes) -> bool:
    """Whether the value stands in a text, which may be compressed."""
    if text.startswith(b"\x1f\x8b"):
        try:
            text = gzip.decompress(text)
        except (OSError, EOFError):
            return False
    return str(VALUE).encode() in text


def parts_of(value: object) -> list[object]:
    """What a record or a container holds."""
    if isinstance(value, tuple | list | frozenset | set):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # What changes is a place where records are kept, not a record.
        is_record = type(value).__dataclass_params__.frozen  # type: ignore[attr-defined]
        names = [field.name for field in dataclasses.fields(value)] if is_record else []
    else:
        fields = getattr(type(value), "__struct_fields__", ())  # of msgspec
        names = list(fields) if isinstance(fields, tuple) else []
    return [getattr(value, name, None) for name in names]


def scrape_until_seen(url: str) -> None:
    """Scrape until the value is shown, then ask the process to end."""
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            time.sleep(0.05)
            try:
                with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - our own
                    if f"}} {VALUE}\n".encode() in response.read():
                        return
            except OSError:
                continue
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """Run, and print; 1 where the value was never shown."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--state-file", action="store_true", help="keep the counters in a file")
    parser.add_argument("--package", type=Path, help="the checkout to look at (default: this one)")
    options = parser.parse_args()
    root = (options.package or Path(__file__).parent.parent).resolve()
    sys.path.insert(0, str(root))
    lines = functions(root, state_file=options.state_file)
    for number, line in enumerate(lines, 1):
        print(f"{number:3} {line}")
    files = {line.partition(":")[0] for line in lines}
    print(f"{len(lines)} functions in {len(files)} modules")
    return 0 if lines else 1


def functions(root: Path, *, state_file: bool = False) -> list[str]:
    """The functions of the package below `root` that the value passes, each with file and line."""
    trace = Trace(root / "exporter")
    service = ThreadingHTTPServer((LISTEN, 0), Service)
    threading.Thread(target=service.serve_forever, daemon=True).start()
    os.environ[KEY_VARIABLE] = "a2V5"
    with tempfile.TemporaryDirectory() as folder:
        account = {
            "name": "account",
            "endpoint": f"http://{LISTEN}:{service.server_address[1]}",
            "auth": {"method": "shared_key", "key_env": KEY_VARIABLE},
        }
        config: dict[str, Any] = {"defaults": {"interval": "4s"}, "accounts": [account]}
        if state_file:
            config["state_file"] = str(Path(folder) / "state.db")
        file = Path(folder) / "config.yaml"
        file.write_text(json.dumps(config))
        with ThreadingHTTPServer((LISTEN, 0), Service) as free:
            port = free.server_address[1]
        from exporter.__main__ import main as program

        url = f"http://{LISTEN}:{port}/metrics"
        threading.Thread(target=scrape_until_seen, args=(url,), daemon=True).start()
        threading.setprofile(trace)
        sys.setprofile(trace)
        try:
            web = f"--web.listen-address={LISTEN}:{port}"
            program(["run", f"--config.file={file}", web, "--log.level=error"])
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            service.shutdown()
    return trace.lines()


if __name__ == "__main__":
    sys.exit(main())
