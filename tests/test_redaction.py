"""Secrets in texts that others wrote are masked before anything keeps, shows or logs them."""

from __future__ import annotations

import io
import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter import config
from exporter.batch import models
from exporter.batch.client import BatchClient
from exporter.batch.errors import CredentialError, PollError, ServiceError
from exporter.batch.session import proxy_for
from exporter.cli.preflight.account_check import check_accounts
from exporter.cli.preflight.report import as_text
from exporter.config import loader, redaction
from exporter.config.problems import ConfigError
from exporter.config.redaction import redact
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
    ("u=a%3Fsv%3D1%26sig%3DS3NT1NEL%26se%3D2", "u=a?sv=1&sig=<redacted>&se=2"),
    ("a%253Fsig%253DS3NT1NEL", "a?sig=<redacted>"),
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
    ("password%3DS3NT1NEL%26a%3Db", "password=<redacted>&a=b"),
    ('{"password": "S3NT1 NEL", "user": "bob"}', '{"password": "<redacted>", "user": "bob"}'),
    (r'{"token":"a\"S3NT1NEL"}', '{"token":"<redacted>"}'),
    (r"{\"secret\":\"S3NT1NEL\"}", r"{\"secret\":\"<redacted>" + '"}'),
    ("token = 'S3NT1NEL", "token = '<redacted>"),
    ('"password": ["S3NT1NEL"]', '"password": [<redacted>]'),
    ("password=S3NT&1NEL;S3NT1NEL user=bob", "password=<redacted> user=bob"),
    ("x-functions-key: S3NT1NEL", "x-functions-key: <redacted>"),
    # URLs and keys
    ("postgres://bob:S3NT@1NEL@host:5432/db", "postgres://<redacted>@host:5432/db"),
    ("https://S3NT1NEL@github.com/x", "https://<redacted>@github.com/x"),
    (f"the key {PEM} is bad", "the key <redacted> is bad"),
    ("-----BEGIN PRIVATE KEY-----\nS3NT1NEL", "<redacted>"),
    # Encoded
    ("a?%73ig=S3NT1NEL&se=1", "a?sig=<redacted>&se=1"),
    ("AccountKey&#x3d;S3NT1NEL", "AccountKey=<redacted>"),
    ("{&quot;token&quot;: &quot;S3NT1NEL&quot;}", '{"token": "<redacted>"}'),
    ("password=&quot;a S3NT1NEL&quot; x", "password=&quot;<redacted>&quot; x"),
    (r"{\u0022password\u0022:\u0022S3NT1NEL\u0022}", '{"password":"<redacted>"}'),
    ("password\uff1aS3NT1NEL", "password:<redacted>"),
    ("http%3A%2F%2Fbob%3AS3NT1NEL%40proxy", "http://<redacted>@proxy"),
    (r"http:\/\/bob:S3NT1NEL@proxy", "http://<redacted>@proxy"),
    ("-----BEGIN%20PRIVATE%20KEY-----%0AS3NT1NEL", "<redacted>"),
    # Formats
    ("Shared Access  Key : S3NT1NEL", "Shared Access  Key : <redacted>"),
    ("Account\nKey=\n S3NT1NEL", "Account\nKey=\n <redacted>"),
    ("AccountKey=abc/\nS3NT1NEL==", "AccountKey=<redacted>"),
    ('{"name": "DB_TOKEN", "value": "S3NT1NEL"}', '{"name": "DB_TOKEN", "value": "<redacted>"}'),
    ("- name: DB_TOKEN\n  value: S3NT1NEL", "- name: DB_TOKEN\n  value: <redacted>"),
    ('<add key="ApiKey" value="S3NT1NEL"/>', '<add key="ApiKey" value="<redacted>"/>'),
    ('<token a="b">S3NT1NEL</token>', '<token a="b"><redacted></token>'),
    ("<token>\n  <![CDATA[S3NT1NEL]]></token>", "<token>\n  <![CDATA[<redacted></token>"),
    ("password: |\n  S3NT1NEL", "password: |\n  <redacted>"),
    ("tokens: ['a', 'S3NT1NEL']", "tokens: [<redacted>]"),
    ("Pwd={a;S3NT1NEL};Uid=b", "Pwd={<redacted>};Uid=b"),
    ("('Authorization', 'S3NT1NEL')", "('Authorization', '<redacted>')"),
    ("{'password': b'S3NT1NEL'}", "{'password': b'<redacted>'}"),
    ("token[0] == 'S3NT1NEL'", "token[0] == '<redacted>'"),
    ('["--password", "S3NT1NEL"]', '["--password", "<redacted>"]'),
    ("connectionString=S3NT1NEL", "connectionString=<redacted>"),
    ("https://f/api?code=S3NT1NELabcdefghijklmn==", "https://f/api?code=<redacted>"),
    # Headers
    ('"Authorization: Token S3NT1NEL"', '"Authorization: Token <redacted>"'),
    ('Authorization: Digest username="a", response="S3NT1NEL"', "Authorization: Digest <redacted>"),
    ("Set-Cookie: id=S3NT1NEL; Path=/", "Set-Cookie: <redacted>"),
    ("curl -H 'Cookie: a=1; session=S3NT1NEL' x", "curl -H 'Cookie: <redacted>' x"),
    ("password=$(echo S3NT1NEL)", "password=$(<redacted>)"),
    ('{"password":["a]","S3NT1NEL"]}', '{"password":[<redacted>]}'),
    ("Bearer: S3NT1NEL", "Bearer: <redacted>"),
    # Commands
    ("curl -u bob:S3NT1NEL https://a", "curl -u bob:<redacted> https://a"),
    ("curl --proxy-user 'bob:S3NT1NEL'", "curl --proxy-user 'bob:<redacted>'"),
    ("curl -x bob:S3NT1NEL@proxy:3128", "curl -x <redacted>@proxy:3128"),
    ("mysql -u root -pS3NT1NEL db", "mysql -u root -p<redacted> db"),
    ("sshpass -p S3NT1NEL ssh a", "sshpass -p <redacted> ssh a"),
    ("docker login -u bob -p S3NT1NEL", "docker login -u bob -p <redacted>"),
    ("PGPASSWORD=a'S3NT1NEL' psql", "PGPASSWORD=<redacted>' psql"),
    (r"--token 'a'\''S3NT1NEL' -v", "--token '<redacted>' -v"),
    ("openssl -passin pass:S3NT1NEL", "openssl -passin <redacted>"),
    ("--password \\\n S3NT1NEL", "--password \\\n <redacted>"),
    ("http://bob:a/S3NT1NEL@proxy", "http://<redacted>@proxy"),
    # Shapes
    ("id-ghp_S3NT1NELabcdefghijklmnopqrstuvwxyz12", "id-<redacted>"),
    ("glpat-S3NT1NELabcdefghijkl", "<redacted>"),
    ("xoxb-123456789012-S3NT1NELabc", "<redacted>"),
    ("AKIAS3NT1NELABCDEFGH", "<redacted>"),
    ("AIzaS3NT1NELabcdefghijklmnopqrstuvw-_12", "<redacted>"),
    ("npm_S3NT1NELabcdefghijklmnopqrstuvwxyz12", "<redacted>"),
    ("dckr_pat_S3NT1NELabcdefghijklmnop", "<redacted>"),
    ("hvs.S3NT1NELabcdefghijklmnopqrstu", "<redacted>"),
    ("sk-proj-S3NT1NELabcdefghijklmnop", "<redacted>"),
    ("it is a1b8Q~S3NT1NELabcdefghijklmnopqrstuvwxyz1", "it is <redacted>"),
    ("it is S3NT1NEL" + 78 * "a" + "==", "it is <redacted>"),
    ("it is S3NT1NEL" + 35 * "a" + "=.", "it is <redacted>."),
    ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx\n  S3NT1NEL-abcdefgh", "<redacted>"),
    ("-----BEGIN PGP PRIVATE KEY BLOCK-----\\nS3NT1NEL", "<redacted>"),
    ("Private-Lines: 1\nS3NT1NEL\nPrivate-MAC: S3NT1NEL", "<redacted>"),
]

ORDINARY = [
    "SurveyJob-20240101 heyJudeRender MonkeyJob-nightly ASIA2024010112000000",
    "Unexpected token: } at max_tokens=4096",
    "docker run -u 1000:1000 -p 8080:80 image",
    "az login failed: mysql -P 3306 is not there",
    'File "/app/token.py", line 12, in <module>',
    "image a.io/b@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "https://[::1]:8080/a@b",
    "mail to bob@example.com:25 failed",
    "50% of it & more: see https://a/?x=1%202&y=3",
    "AssertionError: passing 3 of 5",
    "npm_install_dependencies_for_the_web_and_more",
    "sk-learn-training-night-run-2026-01-01-blue",
    "api-key:job-3",
    "status code=404 ?code=404&x",
    "the connection string: missing",
    "C:\\users\\x20\\file of caf\u00e9",
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
        *("a:b@", "://a:", "%25", "&amp;", "token value=", "token[", "-u a:", "login ", "mysql -p"),
        *("password=&quot;a", "token=''a", "Private-Lines:", '<token a="', "a8Q~", "key=\nAAAA="),
        *("xoxb-", "eyJaaaaaaa\n", "\ufdfa token", "authorization digest ", "token \\\n", "A="),
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


@pytest.mark.parametrize(
    "job_id",
    [
        "SurveyJob-20240101",
        "heyJudeRender",
        "ASIA2024010112000000",
        "password:job-job-1",
        "token-refresh:job-12",
        "api-key:job-1",
        "secret-santa",
        "mysql-p-nightly",
        "a" * 64,
    ],
)
def test_an_ordinary_id_stays(job_id: str) -> None:
    assert redaction.redact_id(job_id) == job_id


@pytest.mark.parametrize(
    "name", ["render_pass", "sort_key", "partition-key", "max_tokens", "pass2"]
)
def test_the_value_of_an_ordinary_name_stays(name: str) -> None:
    assert not redaction.is_secret_name(name)


@pytest.mark.parametrize("start", ["token", "bearer", "(b'", "password=", "'--key"])
def test_many_backslashes_cost_no_more_than_they_are_long(start: str) -> None:
    took = []
    for length in (4_000, 16_000):
        began = time.perf_counter()
        redact(start + "\\" * length)
        took.append(time.perf_counter() - began)
    # Four times the length took sixteen times as long.
    assert took[1] < 10 * took[0] + 0.05


async def test_a_job_with_a_token_for_an_id_is_left_out_and_said(
    batch: FakeBatch, client: BatchClient
) -> None:
    names = ["render", f"ghp_{'a' * 36}"]
    batch.json("/jobs", {"value": [{"id": name, "state": "active"} for name in names]})
    jobs = [job.id async for page in client.list_jobs() for job in page]
    assert jobs == ["render"]


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
        "refused Kx~7%20%26%22plain%5ctail here",
        "refused Kx%257E7%2520%2526%2522plain%255Ctail here",
        "refused Kx~7 &amp;&quot;plain\\tail here",
        "refused opaque1token here",
        "refused opaque1token-2 here",
    ):
        assert redact(text) == "refused <redacted> here"
    assert redact("a short text") == "a short text"


def test_the_password_of_the_proxy_is_a_secret_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_hidden", [])
    monkeypatch.setattr(redaction, "_hidden_since", {})
    monkeypatch.setenv("HTTPS_PROXY", "http://bob:horse+battery%21@proxy:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert proxy_for("account.invalid") is not None
    assert redact("I do not know horse+battery!") == "I do not know <redacted>"
    assert redact("it sent Ym9iOmhvcnNlK2JhdHRlcnkh") == "it sent <redacted>"


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

KINDS = [
    f"https://a.blob.core.windows.net/c/f?sv=2020-01-01&sig={SECRET}%2Babc",
    f"https://b?u=a%253Fsv%253D1%2526%2573ig%253D{SECRET}",
    f"AccountName=a;AccountKey={SECRET}/abc==",
    f"Endpoint=sb://a/;Shared Access Key = {SECRET}=",
    f"SharedAccessSignature={SECRET}",
    f"Authorization: Bearer {SECRET}",
    f"Authorization: Basic {SECRET}=",
    f'"Authorization: Token {SECRET}"',
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
    f"run --password {SECRET}",
    f"token={SECRET}",
    f"client_secret: {SECRET}",
    f'{{"api_key": "{SECRET}"}}',
    rf"{{\"api_key\": \"{SECRET}\"}}",
    rf"{{\u0022password\u0022: \u0022{SECRET}\u0022}}",
    f"&lt;password&gt;{SECRET}&lt;/password&gt;",
    f"- name: DB_TOKEN\n  value: {SECRET}",
    f"postgres://bob:{SECRET}@host/db",
    f"http://bob:a/{SECRET}@proxy:3128",
    f"curl -u bob:{SECRET} https://a",
    f"mysql -u root -p{SECRET} db",
    f"docker login -u bob -p {SECRET} a.io",
    f"PGPASSWORD='{SECRET}' psql",
    f"Set-Cookie: id={SECRET}; Path=/",
    f"ghp_{SECRET}abcdefghijklmnopqrstuvwxyz12",
    f"AKIA{SECRET}ABCDEFGH",
    f"a1b8Q~{SECRET}abcdefghijklmnopqrstuvwxyz1",
    f"{SECRET}{78 * 'a'}==",
    PEM,
    PEM.replace("\n", "\\n"),
]
"""A secret of each kind. The first thing that is said of each is one that may be seen."""

SEEN = "Ordinary words stay."


class Planted:
    """Some kinds of secrets for the texts of an account, and one for its ids."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.text = f"{SEEN} {' '.join(kinds)}"
        self.line = " ".join(self.text.split())
        """As a header or a reason phrase may have it."""
        self.id = kinds[0]

    def __call__(self, value: Any) -> Any:
        """The value with a secret in each text: `T` stands for all of them, `I` for an id."""
        if isinstance(value, dict):
            return {name: self(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self(item) for item in value]
        known = {"T": self.text, "I": self.id}
        return known.get(value, value) if isinstance(value, str) else value


PART = 6
PARTS_OF_KINDS = [KINDS[first : first + PART] for first in range(0, len(KINDS), PART)]
"""So few that no text is cut before it shows them all."""


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


def plant_everywhere(batch: FakeBatch, plant: Planted) -> None:
    """Answer each request of the client with secrets in each text."""
    names = ("request-id", "ETag", "Location", "WWW-Authenticate", "Proxy-Authenticate", "x-ms-a")
    headers = dict.fromkeys(names, plant.line)
    errors = plant([{"key": "T", "value": "T"}, {"key": "password", "value": SECRET}])
    refusals = {
        "job-2": batch_error(400, plant.text, plant.text, errors, headers),
        "job-4": batch_error(400, "Bad", "", errors, headers),
        "job-5": reply(plant.text, 400, headers, plant.line),
        "job-6": reply("", 307, headers, plant.line),
    }
    jobs = [{**JOB, "id": name} for name in (*JOBS, plant.id)]
    link = f"{batch.endpoint}/jobs/next?$skiptoken={SECRET}"
    batch.json("/jobs", {"value": plant(jobs), "odata.nextLink": link, "x": plant.text})
    batch.json("/jobs/next", {"value": []})
    task_link = f"http://other.invalid/?sig={SECRET}"
    for name in JOBS:
        path = f"/jobs/{name}"
        bodies = {
            "/taskcounts": {"taskCounts": COUNTS, "taskSlotCounts": COUNTS, "x": plant.text},
            "/jobpreparationandreleasetaskstatus": {"value": plant([NODE])},
            "/tasks": {"value": plant([TASK, {**TASK, "id": "I"}])},
            "/tasks/named": plant({**TASK, "id": "named"}),
        }
        for part, body in bodies.items():
            if name != "job-1" and part == "/tasks":
                body = {"value": [], "odata.nextLink": task_link}
            if name == "job-3":
                batch.on(path + part, reply(plant.text))  # it is not JSON
            elif name in refusals and part != "/tasks":
                batch.on(path + part, refusals[name])
            else:
                batch.on(path + part, reply(body, headers=headers))
    nodes = {"poolId": "I", "dedicated": {plant.text: 1, "idle": 2}, "lowPriority": {"idle": 1}}
    batch.json("/nodecounts", {"value": plant([nodes])})


JOBS = [f"job-{number}" for number in range(1, 7)]


async def test_a_job_that_is_read_alone_is_masked(batch: FakeBatch, client: BatchClient) -> None:
    plant = Planted([f"token={SECRET}", *KINDS])
    batch.json("/jobs/job-1", plant(JOB))
    job = await client.get_job("job-1")
    assert (job.id, job.pool_id) == ("job-1", "token=<redacted>")
    assert SECRET not in repr(job)


async def test_a_large_answer_is_masked_too(batch: FakeBatch, client: BatchClient) -> None:
    batch.json("/jobs", {"value": [Planted(KINDS)(JOB)] * 500})
    jobs = [job async for page in client.list_jobs() for job in page]
    assert len(jobs) == 500
    assert SECRET not in repr(jobs)


async def pages_of(service: Service) -> dict[str, str]:
    """Each page, by its path."""
    jobs = [f"account=myaccount&job_id={job}" for job in JOBS]
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


def assert_masked(emitted: Mapping[str, str | bytes]) -> None:
    for where, text in emitted.items():
        found = text if isinstance(text, str) else text.decode("latin-1")
        assert SECRET not in found, (where, found[max(0, found.find(SECRET) - 300) :][:400])


def configured(batch: FakeBatch, folder: Path, *rules: dict[str, Any]) -> config.Config:
    account = {
        "name": "myaccount",
        "endpoint": batch.endpoint,
        "auth": {"method": "shared_key", "key_env": "BATCH_KEY"},
        "requests_per_second": 1000,
        "request_timeout": "2s",
        "jobs": list(rules),
    }
    defaults = {"collect": ["task_counts", "preparation_release", "tasks"], "interval": "1s"}
    data = {"accounts": [account], "defaults": defaults, "state_file": "state.db"}
    return loader.parse(json.dumps(data), "test.yaml", folder)


async def all_that_is_emitted(
    loaded: config.Config, folder: Path, log: io.StringIO
) -> dict[str, str | bytes]:
    """Pages, metrics, log and state file of a service that runs, stops and runs again."""
    emitted: dict[str, str | bytes] = {}
    for round_ in range(2):  # the second time with what the state file has
        async with open_service(loaded) as service:
            for _ in range(2):
                await service.run_once()
            for path, text in (await pages_of(service)).items():
                emitted[f"{path} {round_}"] = text
            emitted |= {f"{f.name} {round_}": f.read_bytes() for f in folder.glob("state.db*")}
        emitted |= {f"{f.name}, closed {round_}": f.read_bytes() for f in folder.glob("state*")}
    report = await check_accounts(loaded, "test.yaml")
    emitted |= {"check": as_text(report), "check, JSON": json.dumps(asdict(report))}
    emitted["log"] = log.getvalue()
    return emitted


RULE = {"id_regex": "(?s).*", "tasks": ["named"], "metadata_labels": ["team", "db_password"]}


@pytest.mark.parametrize("kinds", PARTS_OF_KINDS, ids=range(len(PARTS_OF_KINDS)))
async def test_a_secret_in_any_text_of_the_service_is_seen_nowhere(
    kinds: list[str],
    batch: FakeBatch,
    log: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant_everywhere(batch, Planted(kinds))
    monkeypatch.setenv("BATCH_KEY", KEY)
    emitted = await all_that_is_emitted(configured(batch, tmp_path, RULE), tmp_path, log)
    asked = {request.raw_path.partition("?")[0] for request in batch.requests}
    assert asked >= batch.answers.keys()
    assert_masked(emitted)
    pages = [f"/job?account=myaccount&job_id={job} 0" for job in ("job-2", "job-4", "job-5")]
    for where in ("/api/v1/failures 0", *pages, "log", "check"):
        assert SEEN in emitted[where], where
    assert any(SEEN.encode() in text for text in emitted.values() if type(text) is bytes)


@pytest.mark.parametrize("kinds", PARTS_OF_KINDS, ids=range(len(PARTS_OF_KINDS)))
async def test_a_secret_in_any_text_of_the_configuration_is_seen_nowhere(
    kinds: list[str],
    batch: FakeBatch,
    log: io.StringIO,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BATCH_KEY", KEY)
    plant_everywhere(batch, Planted(["x"]))
    rules = [
        {
            "id_regex": f"job-1|{re.escape(kind)}",
            "group": f"{SEEN} {kind}",
            "labels": {"note": kind, "db_token": SECRET},
            "metadata_labels": ["team"],
            "metadata": {"token": SECRET, kind: kind} if number else {},
            "tasks": [kind] if len(kind) <= 64 else [],
        }
        for number, kind in enumerate(kinds)
    ]
    ids = [{"id": kind, "metadata_labels": [f"a {kind}"], "labels": {"a": kind}} for kind in kinds]
    loaded = configured(batch, tmp_path, *rules, *ids, {**RULE, "labels": {"note": kinds[0]}})
    emitted = await all_that_is_emitted(loaded, tmp_path, log)
    assert_masked(emitted)
    assert SEEN in emitted["/metrics 0"]
    assert 'db_token="<redacted>"' in emitted["/metrics 0"]


MISTAKES: list[Callable[[str], Any]] = [
    lambda kind: {kind: 1},
    lambda kind: kind,
    lambda kind: {"accounts": kind},
    lambda kind: {"accounts": [{"name": kind}]},
    lambda kind: {"accounts": [{"endpoint": kind}]},
    lambda kind: {"accounts": [{"api_version": kind, "max_jobs": kind, "pool_nodes": kind}]},
    lambda kind: {"accounts": [{"request_timeout": kind, "requests_per_second": kind}]},
    lambda kind: {"accounts": [{"auth": {"method": kind, "client_secret": kind, kind: kind}}]},
    lambda kind: {"accounts": [{"auth": {"client_id": kind, "tenant_id": kind, "scope": kind}}]},
    lambda kind: {"accounts": [{"auth": {"key_env": kind, "certificate_file": [kind]}}]},
    lambda kind: {"accounts": [{"jobs": [{"id_regex": f"({kind}", "states": [kind]}]}]},
    lambda kind: {"accounts": [{"jobs": [{"id_regex": "x", "group": f"${{{kind}}}"}]}]},
    lambda kind: {"accounts": [{"jobs": [{"id": "x", "labels": {kind: kind, "a": [kind]}}]}]},
    lambda kind: {"accounts": [{"jobs": [{"id": "x", "metadata_labels": [kind, kind]}]}]},
    lambda kind: {"accounts": [{"jobs": [{"id": "x", "tasks": [kind, kind], "collect": [kind]}]}]},
    lambda kind: {"defaults": {"collect": [kind], "interval": kind, "stale_after": kind}},
    lambda kind: {"exclude_metrics": [kind], "state_file": [kind]},
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_configuration_shows_no_secret(
    mistake: Callable[[str], Any], tmp_path: Path
) -> None:
    for kind in KINDS:
        for text in (json.dumps(mistake(kind)), f"a: [{kind}", f"{kind}: 1\n{kind}: 2"):
            with pytest.raises(ConfigError) as caught:
                loader.parse(text, "test.yaml", tmp_path, ("azure_batch_up",))
            assert SECRET not in str(caught.value), (kind, str(caught.value))


@pytest.mark.parametrize("kind", KINDS)
def test_a_secret_that_is_cut_off_is_not_half_a_secret(kind: str) -> None:
    for kept in (30, len(kind) // 2):
        wire = msgspec.json.encode({"message": (models.MAX_TEXT - kept) * "." + " " + kind})
        assert SECRET not in str(msgspec.json.decode(wire, type=models.FailureInfo).message)
