"""Secrets in texts that others wrote are masked before anything keeps, shows or logs them."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.batch import models, redaction
from exporter.batch.client import BatchClient
from exporter.batch.errors import CredentialError, PollError, ServiceError
from exporter.batch.redaction import redact
from exporter.config import loader
from exporter.service import logs
from exporter.service.service import Service, open_service
from exporter.web.app import build_app
from exporter.web.server.listener import listen
from tests.conftest import KEY
from tests.fake_batch import FakeBatch, batch_error, reply

SECRET = "S3NT1NEL"
"""A part of each planted secret. No text may show it."""

PEM = f"-----BEGIN RSA PRIVATE KEY-----\nMII{SECRET}\nxyz=\n-----END RSA PRIVATE KEY-----"

TEXTS = [
    # Shared access signatures
    (
        "GET https://a.blob.core.windows.net/c/f?sv=2020-01-01&sig=S3NT1NEL%3D&se=2026 failed",
        "GET https://a.blob.core.windows.net/c/f?sv=2020-01-01&sig=<redacted>&se=2026 failed",
    ),
    ("a?sv=1&amp;sig=S3NT1NEL&amp;se=2", "a?sv=1&amp;sig=<redacted>&amp;se=2"),
    ("u=a%3Fsv%3D1%26sig%3DS3NT1NEL%26se%3D2", "u=a%3Fsv%3D1%26sig%3D<redacted>%26se%3D2"),
    ("a%253Fsig%253DS3NT1NEL", "a%253Fsig%253D<redacted>"),
    ("x?SIG=S3NT1NEL", "x?SIG=<redacted>"),
    # Connection strings
    ("AccountName=a;AccountKey=S3NT1NEL/+==;B=c", "AccountName=a;AccountKey=<redacted>;B=c"),
    (
        "Endpoint=sb://a/;SharedAccessKeyName=Root;SharedAccessKey=S3NT1NEL=",
        "Endpoint=sb://a/;SharedAccessKeyName=Root;SharedAccessKey=<redacted>",
    ),
    ("SharedAccessSignature=S3NT1NEL;A=b", "SharedAccessSignature=<redacted>;A=b"),
    ("SharedAccessSignature sr=S3NT1NEL&se=1", "SharedAccessSignature <redacted>&se=1"),
    # Headers and tokens
    ("Authorization: Bearer S3NT1NEL", "Authorization: Bearer <redacted>"),
    ("authorization: basic S3NT1NEL=", "authorization: basic <redacted>"),
    ("{'Authorization': 'S3NT1NEL'}", "{'Authorization': '<redacted>'}"),
    ("curl with bearer S3NT1NEL and more", "curl with bearer <redacted> and more"),
    ("Basic dXNlcjpwYXNz", "Basic <redacted>"),
    ("SharedKey account:S3NT1NEL", "SharedKey <redacted>"),
    ("it was eyJhbGciOiJIUzI1.eyJzdWIi.S3NT1NEL, sorry", "it was <redacted>, sorry"),
    # Arguments
    ("run --password S3NT1NEL --user bob", "run --password <redacted> --user bob"),
    ("run --db-password=S3NT1NEL -v", "run --db-password=<redacted> -v"),
    ("run --sas-token '?a=1 S3NT1NEL' -v", "run --sas-token '<redacted>' -v"),
    ("run --client-secret --verbose", "run --client-secret --verbose"),
    ("passwd=S3NT1NEL, pwd = S3NT1NEL", "passwd=<redacted> pwd = <redacted>"),
    ("AZURE_CLIENT_SECRET=S3NT1NEL ./run", "AZURE_CLIENT_SECRET=<redacted> ./run"),
    ("api_key: S3NT1NEL", "api_key: <redacted>"),
    ("x-api-key:S3NT1NEL", "x-api-key:<redacted>"),
    ("accessKey=S3NT1NEL secretValue=S3NT1NEL", "accessKey=<redacted> secretValue=<redacted>"),
    ("credentials => S3NT1NEL", "credentials => <redacted>"),
    ("<Password>S3NT1NEL</Password>", "<Password><redacted></Password>"),
    ("password%3DS3NT1NEL%26a%3Db", "password%3D<redacted>%26a%3Db"),
    ('{"password": "S3NT1 NEL", "user": "bob"}', '{"password": "<redacted>", "user": "bob"}'),
    (r'{"token":"a\"S3NT1NEL"}', '{"token":"<redacted>"}'),
    (r"{\"secret\":\"S3NT1NEL\"}", r"{\"secret\":\"<redacted>" + '"}'),
    ("token = 'S3NT1NEL", "token = '<redacted>"),
    ('"password": ["S3NT1NEL"]', '"password": ["<redacted>"]'),
    ("password=S3NT&1NEL;S3NT1NEL user=bob", "password=<redacted> user=bob"),
    ("x-functions-key: S3NT1NEL", "x-functions-key: <redacted>"),
    # URLs and keys
    ("postgres://bob:S3NT@1NEL@host:5432/db", "postgres://<redacted>@host:5432/db"),
    ("https://S3NT1NEL@github.com/x", "https://<redacted>@github.com/x"),
    (f"the key {PEM} is bad", "the key <redacted> is bad"),
    ("-----BEGIN PRIVATE KEY-----\nS3NT1NEL", "<redacted>"),
]

ORDINARY = [
    "token is expired",
    "the secret was not found",
    "Error: the token: is expired",
    "bearer token is missing",
    "Bearer authentication failed",
    "Basic authentication is disabled",
    "the SharedAccessSignature is expired",
    "The MAC signature found in the HTTP request is not the same as any computed signature",
    "secretName: batch-key",
    "secret:job-1",  # a job of the job schedule "secret"
    "tokenizer=bert design=a monkey=b",
    "https://host:80/a@b?c=d",
    "password: missing",
    "The task exited with an exit code representing a failure",
]


@pytest.mark.parametrize(("text", "expected"), TEXTS)
def test_secrets_are_masked_and_their_names_stay(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


PARTS = [
    *"= :;&'\"\\\n",
    *("token", "--secret", "Bearer", "://", "@", "eyJ", "sig", "x", "<redacted>"),
]


@given(*[st.lists(st.sampled_from(PARTS) | st.text(max_size=3)).map("".join)] * 2)
def test_a_secret_is_masked_whatever_stands_around_it(before: str, after: str) -> None:
    assert SECRET not in redact(f"{before} password={SECRET} {after}")


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_stay(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "part",
    [
        *("password=", "token ", "--token", 'token="', "eyJ", "Bearer ", "bearer\t\t", "basic a"),
        *("://a", "://a@", "secret\"\\'", "-----BEGIN PRIVATE KEY-----", "authorization:", "key\\"),
    ],
)
def test_time_grows_with_the_length_only(part: str) -> None:
    started = time.process_time()
    redact(part * (200_000 // len(part)))
    assert time.process_time() - started < 2.0  # one that grows with its square takes minutes


def test_the_value_of_a_pair_is_masked_by_its_name() -> None:
    wire = b'{"name": "db_password", "value": "S3NT1NEL"}'
    assert msgspec.json.decode(wire, type=models.NameValuePair).value == "<redacted>"
    wire = b'{"name": "password_rules", "value": "long"}'
    assert msgspec.json.decode(wire, type=models.NameValuePair).value == "long"


def test_a_text_is_masked_however_json_escapes_it() -> None:
    wire = rb'{"message": "p\u0061ssword\u003dS3NT1NEL \u00fc"}'
    decoded = msgspec.json.decode(wire, type=models.FailureInfo)
    assert decoded.message == "password=<redacted> ü"


def test_each_record_with_texts_is_masked() -> None:
    records = {kind for kind in vars(models).values() if isinstance(kind, type(models.Record))}
    with_texts = {
        kind
        for kind in records
        if any("str" in str(field.type) for field in msgspec.structs.fields(kind))
    }
    not_masked = {kind for kind in with_texts if not issubclass(kind, models.Redacted)}
    # `enum_value` reads the texts of the runs. The link to the next page is sent back as it is.
    assert not_masked == {models.SpecialTaskExecutionInfo, models.Page}


def test_the_text_of_each_failure_of_a_poll_is_masked() -> None:
    for kind in (PollError, CredentialError):
        assert str(kind("not good: secret=S3NT1NEL")) == "not good: secret=<redacted>"
    assert "S3NT" not in str(ServiceError(500, "a", "password=S3NT1NEL"))


@pytest.fixture(params=logs.FORMATS)
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """All that is logged, at debug."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logs.configure("debug", request.param, stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_secret_of_ours_is_masked_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_hidden", [])
    monkeypatch.setattr(redaction, "_hidden_since", {})
    for secret in ('Kx~7 &"plain\\tail', "opaque1token", "opaque1token-2", "short"):
        redaction.hide(secret)
    for text in (
        'refused Kx~7 &"plain\\tail here',
        "refused Kx~7%20%26%22plain%5Ctail here",
        "refused Kx~7+%26%22plain%5Ctail here",
        'refused Kx~7 &\\"plain\\\\tail here',
        "refused opaque1token here",
        "refused opaque1token-2 here",
    ):
        assert redact(text) == "refused <redacted> here"
    assert redact("a short text") == "a short text"


def test_the_oldest_secret_of_ours_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_hidden", [])
    monkeypatch.setattr(redaction, "_hidden_since", {})
    for number in range(redaction.HIDDEN_AT_MOST + 1):
        redaction.hide(f"opaque-{number:04}")
        redaction.hide("opaque-0000")
    assert redact("opaque-0000 opaque-0001 opaque-0002") == "<redacted> opaque-0001 <redacted>"


def test_log_lines_are_masked_whoever_wrote_them(log: io.StringIO) -> None:
    try:
        raise ValueError("password=S3NT1NEL")
    except ValueError:
        logging.getLogger("x").exception(
            "it says %s", "sig=S3NT1NEL", extra={"header": "Bearer S3NT1NEL"}
        )
    assert SECRET not in log.getvalue()
    assert "it says sig=<redacted>" in log.getvalue()


# The whole service

SECRETS = [
    f"https://a.blob.core.windows.net/c/f?sv=2020-01-01&sig={SECRET}%2Babc",
    f"AccountName=a;AccountKey={SECRET}/abc==",
    f"Endpoint=sb://a/;SharedAccessKey={SECRET}=",
    f"SharedAccessSignature={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"Authorization: Basic {SECRET}=",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
    f"run --password {SECRET}",
    f"token={SECRET}",
    f"client_secret: {SECRET}",
    f'{{"api_key": "{SECRET}"}}',
    f"postgres://bob:{SECRET}@host/db",
    PEM,
]
PLANTED = "Ordinary words stay. " + " ".join(SECRETS)
ID = f"token={SECRET}"


def plant(value: Any) -> Any:
    """The value with a secret in each text: `T` stands for all of them, `I` for an id."""
    if isinstance(value, dict):
        return {name: plant(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plant(item) for item in value]
    return {"T": PLANTED, "I": ID}.get(value, value) if isinstance(value, str) else value


PAIRS = [{"name": "T", "value": "T"}, {"name": "db_password", "value": SECRET}]
FAILED = {
    "state": "completed",
    "startTime": "2026-01-01T10:00:00Z",
    "endTime": "2026-01-01T10:00:05Z",
    "exitCode": 3,
    "result": "failure",
    "failureInfo": {"category": "T", "code": "T", "message": "T", "details": PAIRS},
}
NODE = {"poolId": "I", "nodeId": "I", "jobPreparationTaskExecutionInfo": FAILED}
NODE["jobReleaseTaskExecutionInfo"] = FAILED
TASK = {
    "id": "a",
    "state": "completed",
    "eTag": "T",
    "stateTransitionTime": "2026-01-01T10:00:05Z",
    "creationTime": "2026-01-01T09:00:00Z",
    "executionInfo": FAILED,
    "nodeInfo": {"poolId": "I", "nodeId": "I"},
    "stats": {"wallClockTime": "T", "userCPUTime": "T"},
}
JOB = {
    "id": "job-1",
    "displayName": "T",
    "state": "active",
    "poolInfo": {"poolId": "I"},
    "executionInfo": {"poolId": "I", "terminateReason": "T"},
    "metadata": [*PAIRS, {"name": "team", "value": "T"}],
}
COUNTS = {"active": 1, "running": 1, "completed": 1, "succeeded": 0, "failed": 1}


def plant_everywhere(batch: FakeBatch) -> None:
    """Answer each request of the client with secrets in each text."""
    headers = {"request-id": ID, "ETag": ID, "x-ms-other": ID}
    errors = {"key": "T", "value": "T"}, {"key": "password", "value": SECRET}
    error = batch_error(500, PLANTED, PLANTED, plant(list(errors)), headers)
    jobs = [{**JOB, "id": name} for name in ("job-1", "job-2", "job-3", ID)]
    link = f"{batch.endpoint}/jobs/next?$skiptoken={SECRET}"
    batch.json("/jobs", {"value": plant(jobs), "odata.nextLink": link, "x": PLANTED})
    batch.json("/jobs/next", {"value": []})
    task_link = f"http://other.invalid/?sig={SECRET}"
    for name in ("job-1", "job-2", "job-3"):
        path = f"/jobs/{name}"
        is_whole = name == "job-1"
        bodies = {
            "/taskcounts": {"taskCounts": COUNTS, "taskSlotCounts": COUNTS, "x": PLANTED},
            "/jobpreparationandreleasetaskstatus": {"value": plant([NODE])},
            "/tasks": {"value": plant([TASK, {**TASK, "id": "I"}])},
            "/tasks/named": plant({**TASK, "id": "named"}),
        }
        for part, body in bodies.items():
            if not is_whole and part == "/tasks":
                body = {"value": [], "odata.nextLink": task_link}
            if name == "job-3":
                batch.on(path + part, reply(PLANTED))  # it is not JSON
            elif name == "job-2" and part != "/tasks":
                batch.on(path + part, error)
            else:
                batch.on(path + part, reply(body, headers=headers))
    nodes = {"poolId": "I", "dedicated": {PLANTED: 1, "idle": 2}, "lowPriority": {"idle": 1}}
    batch.json("/nodecounts", {"value": plant([nodes])})


async def test_a_job_that_is_read_alone_is_masked(batch: FakeBatch, client: BatchClient) -> None:
    batch.json("/jobs/job-1", plant(JOB))
    job = await client.get_job("job-1")
    assert (job.id, job.pool_id) == ("job-1", "token=<redacted>")
    assert SECRET not in repr(job)


async def test_a_large_answer_is_masked_too(batch: FakeBatch, client: BatchClient) -> None:
    batch.json("/jobs", {"value": [plant(JOB)] * 1000})
    jobs = [job async for page in client.list_jobs() for job in page]
    assert len(jobs) == 1000
    assert SECRET not in repr(jobs)


async def pages_of(service: Service) -> dict[str, str]:
    """Each page, by its path."""
    jobs = [f"account=myaccount&job_id=job-{number}" for number in (1, 2, 3)]
    paths = [
        *("/metrics", "/", "/config", "/api/v1/failures", "/api/v1/status", "/api/v1/jobs"),
        *("/api/v1/config", *(f"/job?{job}" for job in jobs), *(f"/api/v1/job?{j}" for j in jobs)),
    ]
    server = await listen(build_app(service, "/metrics"), (("127.0.0.1", 0),))
    try:
        async with aiohttp.ClientSession(server.urls[0]) as session:
            found = {}
            for path in paths:
                async with session.get(path) as response:
                    assert response.status == 200, path
                    found[path] = await response.text()
            return found
    finally:
        await server.close()


async def test_a_secret_in_any_text_of_the_service_is_seen_nowhere(
    batch: FakeBatch, log: io.StringIO, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant_everywhere(batch)
    monkeypatch.setenv("BATCH_KEY", KEY)
    rule = {"id_regex": "(?s).*", "tasks": ["named"], "metadata_labels": ["team", "db_password"]}
    account = {
        "name": "myaccount",
        "endpoint": batch.endpoint,
        "auth": {"method": "shared_key", "key_env": "BATCH_KEY"},
        "requests_per_second": 1000,
        "request_timeout": "2s",
        "jobs": [rule],
    }
    defaults = {"collect": ["task_counts", "preparation_release", "tasks"], "interval": "1s"}
    data = {"accounts": [account], "defaults": defaults, "state_file": "state.db"}
    config = loader.parse(json.dumps(data), "test.yaml", tmp_path)
    emitted: dict[str, str | bytes] = {}
    for round_ in range(2):  # the second time with what the state file has
        async with open_service(config) as service:
            for _ in range(2):
                await service.run_once()
            for path, text in (await pages_of(service)).items():
                emitted[f"{path} {round_}"] = text
            emitted |= {f"{f.name} {round_}": f.read_bytes() for f in tmp_path.glob("state.db*")}
        emitted |= {f"{f.name}, closed {round_}": f.read_bytes() for f in tmp_path.glob("state*")}
    emitted["log"] = log.getvalue()
    asked = {request.raw_path.partition("?")[0] for request in batch.requests}
    assert asked >= batch.answers.keys()
    for where, text in emitted.items():
        found = text if isinstance(text, str) else text.decode("latin-1")
        assert SECRET not in found, (where, found[max(0, found.find(SECRET) - 300) :][:400])
    for where in ("/api/v1/failures 0", "/job?account=myaccount&job_id=job-2 0", "log"):
        assert "Ordinary words stay." in emitted[where], where
    assert any(b"Ordinary words stay." in text for text in emitted.values() if type(text) is bytes)
