"""The systemd unit, judged by systemd-analyze; and the restriction that Python might not bear."""

from __future__ import annotations

import asyncio
import platform
import re
import subprocess
import sys
from pathlib import Path

import aiohttp
import bcrypt
import pytest

from tests import tools
from tests.certificates import Authority
from tests.deploy.rendering import DEPLOY
from tests.process import logged_address, process, program, stop, until_ready

pytestmark = pytest.mark.full

UNIT = DEPLOY / "systemd" / "azure-batch-exporter.service"
SOCKET = UNIT.with_suffix(".socket")
PROGRAM = "/opt/azure-batch-exporter/bin/azure-batch-exporter"

EXPOSURE = 20
"""At most this, of 100: with systemd 252 it is 12, and 28 without the filter of system calls."""


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tools.systemd_analyze(), "--no-pager", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def installed(folder: Path) -> Path:
    """The unit with its drop-in, and with a program that exists here."""
    unit = folder / UNIT.name
    text = UNIT.read_text()
    assert PROGRAM in text
    unit.write_text(text.replace(PROGRAM, sys.executable))
    drop_ins = folder / f"{UNIT.name}.d"
    drop_ins.mkdir()
    for name in ("secrets.conf", "socket.conf"):
        text = (UNIT.parent / name).read_text()
        (drop_ins / name).write_text(text.replace(PROGRAM, sys.executable))
    (folder / SOCKET.name).write_bytes(SOCKET.read_bytes())
    return unit


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    done = analyze("verify", unit, tmp_path / SOCKET.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    unit.write_text(unit.read_text().replace("PrivateTmp", "PrivateTemp"))
    assert "PrivateTemp" in analyze("verify", unit).stderr


@pytest.mark.parametrize("is_valid", [True, False])
async def test_a_reload_fails_where_the_configuration_is_refused(
    tmp_path: Path, is_valid: bool
) -> None:
    file = tmp_path / "config.yaml"
    text = (DEPLOY.parent / "config.example.yaml").read_text()
    file.write_text(text)
    flags = (f"--config.file={file}", "--web.listen-address=127.0.0.1:0")
    async with program("run", *flags) as started, asyncio.timeout(200):
        await logged_address(started)
        file.write_text(text if is_valid else f"{text}\nunknown: 1\n")
        codes = []
        for line in re.findall("^ExecReload=(.*)$", UNIT.read_text(), re.MULTILINE):
            command = line.replace(PROGRAM, f"{sys.executable} -m exporter")
            command = command.replace("/etc/azure-batch-exporter/config.yaml", str(file))
            command = command.replace("$MAINPID", str(started.pid))
            done = await asyncio.to_thread(subprocess.run, command.split(), capture_output=True)
            codes.append(done.returncode)
        assert codes == ([0, 0] if is_valid else [0, 2])
        assert started.stderr is not None
        async for logged in started.stderr:
            if b"reloaded" in logged:
                assert (b"not reloaded" in logged) != is_valid
                break
        await stop(started)


def test_the_service_is_exposed_no_more_than_it_must_be(tmp_path: Path) -> None:
    unit = installed(tmp_path)
    arguments = ("security", "--offline=true", f"--threshold={EXPOSURE}")
    done = analyze(*arguments, unit)
    assert done.returncode == 0, done.stdout
    weak = "\n".join(
        line for line in unit.read_text().splitlines() if not line.startswith("SystemCallFilter")
    )
    unit.write_text(weak)
    assert analyze(*arguments, unit).returncode != 0


def test_the_drop_in_says_where_the_secret_is() -> None:
    text = (UNIT.parent / "secrets.conf").read_text()
    (name, _) = re.findall(r"^LoadCredential=([\w-]+):(\S+)$", text, re.MULTILINE)[0]
    assert f"key_file: /run/credentials/{UNIT.name}/{name}\n" in text


UNDER_MDWE = """
import ctypes, mmap, sys
assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0  # PR_SET_MDWE
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
except OSError:
    import azure.identity.aio  # what `run` would import to sign in
    from exporter.__main__ import main
    sys.exit(main(sys.argv[1:]))
sys.exit("memory could be made executable")
"""


LINUX = tuple(int(each) for each in re.findall(r"\d+", platform.release())[:2])


@pytest.mark.skipif(LINUX < (6, 3), reason="Linux before 6.3 has no PR_SET_MDWE")
async def test_memory_that_is_never_made_executable_suffices(tmp_path: Path) -> None:
    assert "MemoryDenyWriteExecute=yes" in UNIT.read_text().splitlines()
    authority = Authority(tmp_path)
    certificate, key = authority.server()
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    (tmp_path / "web.yaml").write_text(
        f"tls_server_config: {{cert_file: {certificate}, key_file: {key}}}\n"
        f"basic_auth_users: {{prometheus: {hashed}}}\n"
    )
    flags = ("--web.listen-address=127.0.0.1:0", f"--web.config.file={tmp_path}/web.yaml")
    command = (sys.executable, "-c", UNDER_MDWE, "demo", *flags)
    async with process(*command) as started, asyncio.timeout(200):
        url = await logged_address(started)
        login = aiohttp.encode_basic_auth("prometheus", "secret")
        async with aiohttp.ClientSession(headers={"Authorization": login}) as session:
            await until_ready(url, ssl=authority.trust(), login=login)
            async with session.get(url, ssl=authority.trust()) as answer:
                assert "azure_batch_up" in await answer.text()
