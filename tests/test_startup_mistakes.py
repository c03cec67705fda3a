"""What a new user does wrong when starting, and what each is answered: what, where, how to mend."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.__main__ import explain, main
from exporter.state.file_lock import lock
from tests.conftest import KEY


def write(name: str, auth: dict[str, str] | None = None, **more: Any) -> None:
    account = {
        "name": "a",
        "endpoint": more.pop("endpoint", "http://127.0.0.1:1"),
        "auth": auth or {"method": "shared_key", "key_env": "BATCH_KEY"},
    }
    Path(name).write_text(json.dumps({**more, "accounts": [account]}))


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A port that is taken; the current folder has configurations, most of them bad."""
    monkeypatch.chdir(tmp_path)
    handlers, level = logging.root.handlers[:], logging.root.level
    monkeypatch.setenv("BATCH_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", "nonsense://proxy")
    write("good.yaml")
    Path("empty.yaml").write_text("")
    Path("latin.yaml").write_bytes(b"\xe9\xff")
    Path("empty").write_text("")
    write("state_is_used.yaml", state_file="state.db")
    write("state_no_folder.yaml", state_file="none/state.db")
    write("state_is_pipe.yaml", state_file="pipe")
    write("state_is_device.yaml", state_file="/dev/null")
    write("state_is_folder.yaml", state_file="folder")
    write("state_is_other.yaml", state_file="good.yaml")
    os.mkfifo("pipe")
    Path("folder").mkdir()
    write("proxied.yaml", endpoint="https://a.westeurope.batch.azure.com")
    for name, place in (
        ("no_secret", {"key_env": "NOWHERE"}),
        ("no_secret_file", {"key_file": "nowhere"}),
        ("empty_secret", {"key_file": "empty"}),
    ):
        write(f"{name}.yaml", {"method": "shared_key", **place})
    held = lock(tmp_path / "state.db")
    assert held is not None
    with held, socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]
    logging.root.handlers[:] = handlers  # the commands configure the log of the whole process
    logging.root.setLevel(level)


def test_a_state_folder_that_this_machine_lacks_is_a_warning_before_a_commit(
    port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--config.file=state_no_folder.yaml"]) == 0
    output, errors = capsys.readouterr()
    assert output == "state_no_folder.yaml: valid, 1 account(s), 1 rule(s), 1 warning(s)\n"
    assert errors == (
        "warning: state_no_folder.yaml: state_file: there is no folder none: make it, writable for"
        " the exporter's user\n"
    )


@pytest.mark.parametrize(
    ("arguments", "status", "answer"),
    [
        (["run"], 2, "run needs --config.file=F"),
        (["run", "--config.file=none.yaml"], 2, "none.yaml: cannot be read: No such file"),
        (["run", "--config.file=."], 2, ".: cannot be read: Is a directory"),
        (["check", "--config.file=empty.yaml"], 2, "empty.yaml:1: the file must be a mapping with"),
        (["check", "--config.file=latin.yaml"], 2, "latin.yaml: not UTF-8 text"),
        (["run", "--config.file=good.yaml", "--web.config.file=none.yaml"], 2,
         "none.yaml: cannot be read"),
        (["run", "--config.file=good.yaml", "--web.listen-address=127.0.0.1:PORT"], 1,
         "cannot listen on 127.0.0.1:PORT: address already in use: stop what has the port, or"
         " choose another one"),
        (["run", "--config.file=good.yaml", "--web.listen-address=192.0.2.1:80"], 1,
         "cannot listen on 192.0.2.1:80: cannot assign requested address: choose an address"),
        (["simulate", "--listen-address=127.0.0.1:PORT"], 1,
         "address already in use: stop what has the port, or choose another one"),
        (["run", "--config.file=state_is_used.yaml"], 2,
         "this state file is in use by another process: give each its own"),
        (["check", "--online", "--config.file=state_no_folder.yaml"], 2,
         "state_no_folder.yaml: state_file: there is no folder none: make it, writable for the"
         " exporter's user"),
        (["check", "--config.file=state_is_pipe.yaml"], 2,
         "state_file: pipe is not a regular file: name another one"),
        (["run", "--config.file=state_is_pipe.yaml"], 2,
         "state_file: pipe is not a regular file: name another one"),
        (["run", "--config.file=state_is_device.yaml"], 2,
         "state_file: /dev/null is not a regular file: name another one"),
        (["check", "--config.file=state_is_folder.yaml"], 2,
         "state_file: folder is a folder: name a file in it"),
        (["check", "--config.file=state_is_other.yaml"], 2,
         "state_file: good.yaml is another kind of file: name one that only the exporter uses"),
        (["scrape", "--config.file=good.yaml", "--output=none/f.prom"], 2,
         "none/f.prom: cannot be written: there is no folder none: make it"),
        (["scrape", "--config.file=good.yaml", "--output=."], 2, "name a file in it"),
        (["run", "--config.file=proxied.yaml"], 2,
         "HTTPS_PROXY is no proxy's address: write http://HOST:"),
        (["check", "--online", "--config.file=proxied.yaml"], 2,
         "HTTPS_PROXY is no proxy's address: write http://HOST:"),
        (["run", "--config.file=no_secret.yaml"], 2,
         "no_secret.yaml:1: accounts[0].auth.key_env: the environment variable NOWHERE is not set"),
        (["run", "--config.file=no_secret_file.yaml"], 2,
         "accounts[0].auth.key_file: "),
        (["run", "--config.file=empty_secret.yaml"], 2, "key_file: empty is empty"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_each_mistake_is_answered_in_one_line(
    arguments: list[str],
    status: int,
    answer: str,
    port: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [argument.replace("PORT", str(port)) for argument in arguments]
    assert main(given) == status
    output, errors = capsys.readouterr()
    assert output == ""
    assert answer.replace("PORT", str(port)) in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "f"), "f: No space left on device: make"),
        (OSError(errno.EADDRINUSE, "[Errno 98] in use"), "in use: stop what has the port"),
        (OSError("the disk is gone"), "the disk is gone"),
        (
            socket.gaierror(socket.EAI_NONAME, "cannot listen on x:1: unknown"),
            "see how the host is",
        ),
    ],
)
def test_what_the_system_refuses_comes_with_a_cure(error: OSError, text: str) -> None:
    assert text in explain(error)
