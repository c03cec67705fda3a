"""Tokens of the Azure CLI, `az account get-access-token`.

azure-identity's own credential leaves processes behind: `az` is a shell script, and only the shell
is killed. Here the whole process group ends with the attempt.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
from contextlib import suppress
from datetime import datetime
from tempfile import TemporaryFile
from typing import IO

from azure.core.credentials import AccessTokenInfo

from exporter.batch.errors import CredentialError

MAX_OUTPUT = 64 * 2**10
"""Bytes that are read of what az printed."""

# Without telemetry az starts no process that outlives it.
_SETTINGS = {"AZURE_CORE_NO_COLOR": "true", "AZURE_CORE_COLLECT_TELEMETRY": "false"}


async def get_token(scope: str, tenant_id: str | None) -> AccessTokenInfo:
    """A token of the identity that `az login` signed in. CredentialError where there is none.

    When cancelled, it ends `az` and all that `az` started.
    """
    program = shutil.which("az")
    if program is None:
        raise CredentialError("the program az is not on PATH", "az_not_found", is_unavailable=True)
    arguments = ["account", "get-access-token", "--output", "json"]
    arguments += ["--resource", scope.removesuffix("/.default")]
    if tenant_id:
        arguments += ["--tenant", tenant_id]
    try:
        status, output, errors = await _run(program, *arguments)
    except OSError as error:
        text = f"{program} cannot be run: {error.strerror}"
        raise CredentialError(text, "az_not_found", is_unavailable=True) from error
    if status == 0:
        return _parsed(output)
    said = " ".join(errors.split()) or f"exit status {status}"
    code = re.search(r"AADSTS\d+", said)
    if code is not None:
        raise CredentialError(f"az: {said}", code[0])
    is_login = "az login" in said or "az account set" in said
    raise CredentialError(
        f"az: {said}", "az_not_logged_in" if is_login else "az_failed", is_unavailable=is_login
    )


async def _run(program: str, *arguments: str) -> tuple[int | None, str, str]:
    """Exit status, output and errors of a program that nothing of outlives this call."""
    # What az starts in the background may hold its output open: the end of a pipe never comes.
    with TemporaryFile() as output, TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *(program, *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, **_SETTINGS},
            start_new_session=True,  # a process group of its own
        )
        try:
            await process.wait()
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        return process.returncode, _start(output), _start(errors)


def _start(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read(MAX_OUTPUT).decode(errors="replace")


def _parsed(output: str) -> AccessTokenInfo:
    try:
        answer = json.loads(output)
        if "expires_on" in answer:
            expires = float(answer["expires_on"])
        else:  # az before 2.54 gives local time only
            expires = datetime.fromisoformat(answer["expiresOn"]).timestamp()
        return AccessTokenInfo(str(answer["accessToken"]), int(expires))
    except (ValueError, KeyError, TypeError):
        # What az printed may hold a token.
        raise CredentialError("az printed no token", "az_failed") from None
