"""The configuration file: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from exporter import config
from exporter.config import files, loader, secret, validation
from exporter.config.problems import ConfigError
from exporter.config.sign_in import Auth
from exporter.config.validation import read_text
from exporter.config.yaml_document import parse_yaml
from exporter.service.service import load_config
from tests.conftest import KEY

ROOT = Path(__file__).parent.parent
BAD = sorted((Path(__file__).parent / "bad_configs").glob("*.yaml"))


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_mistake_is_answered_with_line_path_and_cure(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comment lines at the top of each file are the whole answer, without the file's name."""
    monkeypatch.setenv("BATCH_KEY", KEY)
    monkeypatch.setenv("NOT_BASE64", "hush!")
    text = file.read_text()
    expected = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    folder = f"{file.parent}/"
    problems = [
        problem.removeprefix(f"{file}:").replace(folder, "") for problem in caught.value.problems
    ]
    assert problems == expected


EXAMPLE = (ROOT / "config.example.yaml").read_text()


def test_the_example_shows_every_key() -> None:
    uncommented = re.sub(r"^( *)# ([a-z_]+: )", r"\1\2", EXAMPLE, flags=re.MULTILINE)
    shown = yaml.safe_load(uncommented)
    (account,) = shown["accounts"]
    rules = {key for rule in account["jobs"] for key in rule}
    for place, model, keys in (
        ("the file itself", config.Config, shown),
        ("defaults", config.Defaults, shown["defaults"]),
        ("accounts[]", config.Account, account),
        ("accounts[].auth", config.Auth, account["auth"]),
        ("accounts[].jobs[]", config.Rule, rules),
    ):
        missing = ", ".join(sorted(model.model_fields.keys() - set(keys)))
        assert not missing, f"config.example.yaml does not show {missing} in {place}: add it"


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    """All but the rules, which show what else may be written."""
    shown = loader.parse(EXAMPLE, "config.example.yaml", tmp_path)
    account = shown.accounts[0]
    least = config.Account(name=account.name, endpoint=account.endpoint)
    for place, given, default in (
        ("the file itself", shown, config.Config(accounts=(least,))),
        ("defaults", shown.defaults, config.Defaults()),
        ("accounts[]", account, least),
        ("accounts[].auth", account.auth, config.Auth()),
    ):
        for key, value in default:
            if key not in ("accounts", "jobs"):
                cure = f"config.example.yaml: the default of {key} in {place} is {value}"
                assert getattr(given, key) == value, cure


def test_a_schema_validator_accepts_the_example() -> None:
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "check_jsonschema",
            "--schemafile",
            ROOT / "docs" / "config.schema.json",
            ROOT / "config.example.yaml",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"run `make fix`, which writes the schema: {result.stdout}"


def test_editors_find_the_schema_from_the_example() -> None:
    first = (ROOT / "config.example.yaml").read_text().partition("\n")[0]
    place = first.removeprefix("# yaml-language-server: $schema=")
    assert (ROOT / place).samefile(ROOT / "docs" / "config.schema.json")


VERSIONED = """\
accounts:
  - name: a
    endpoint: https://a.westeurope.batch.azure.com
    api_version: {}
    jobs: [{{id: j, metadata: {{day: 2026-01-02}}}}]
    auth: {{method: azure_cli}}
"""


@pytest.mark.parametrize(
    ("version", "is_old"), [("2025-06-01", False), ("2026-10-01", False), ("2024-07-01.20.0", True)]
)
def test_an_old_version_is_accepted_with_a_warning_and_a_date_is_text(
    version: str, is_old: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded = loader.parse(VERSIONED.format(version), "c.yaml", tmp_path)
    (account,) = loaded.accounts
    assert (account.api_version, account.jobs[0].metadata) == (version, {"day": "2026-01-02"})
    text = "c.yaml:4: accounts[0].api_version: 2024-07-01.20.0 is announced for retirement:"
    warnings = [record.getMessage() for record in caplog.records]
    assert warnings == ([f"{text} write 2025-06-01"] if is_old else [])


def test_two_accounts_with_one_endpoint_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = (
        "accounts:\n  - {name: a, endpoint: 'https://a.b'}\n  - {name: c, endpoint: 'https://c.d'}\n"
        "  - {name: e, endpoint: 'https://A.b/'}\n"
    )
    loader.parse(text, "c.yaml", tmp_path)
    assert caplog.messages == [
        "c.yaml:4: accounts[2].endpoint: account a has it too, and sums over accounts count each"
        " job twice: write one account with the rules of both"
    ]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\xef\xbb\xbfs3cret~value\r\n", None),
        (b"'s3cret~value'", "has white space or quotes in it: write the secret's value alone"),
        (b"s3cret~value\nanother", "has white space or quotes in it: write the secret's value"),
    ],
)
def test_a_secret_is_what_stands_in_its_file_and_no_more(
    content: bytes, problem: str | None, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(content)
    (tmp_path / "secret").chmod(0o600)
    auth = Auth(
        method="client_secret",
        tenant_id="t",
        client_id="c",
        client_secret_file=tmp_path / "secret",
    )
    if problem is None:
        assert secret.read_secret(auth) == b"s3cret~value"
    else:
        with pytest.raises(secret.SecretError, match=problem):
            secret.read_secret(auth)


def test_the_schema_refuses_an_unknown_key() -> None:
    from jsonschema import Draft202012Validator

    schema = json.loads((ROOT / "docs" / "config.schema.json").read_text())
    example = parse_yaml(EXAMPLE, "config.example.yaml").data
    validator = Draft202012Validator(schema)
    assert not list(validator.iter_errors(example)), "run `make fix`, which writes the schema"
    example["accounts"][0]["intervall"] = "30s"
    assert list(validator.iter_errors(example))


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    for file, reason in (
        (tmp_path / "none.yaml", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
        (tmp_path / "binary.yaml", "not UTF-8 text: invalid start byte"),
        (Path(os.devnull), "cannot be read: Not a regular file"),
    ):
        (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe")
        with pytest.raises(ConfigError) as caught:
            load_config(file)
        assert str(caught.value) == f"{file}: {reason}"


def test_a_configuration_may_come_through_a_pipe() -> None:
    reader, writer = os.pipe()
    os.write(writer, EXAMPLE.encode())
    os.close(writer)
    text = read_text(Path(f"/dev/fd/{reader}"))
    os.close(reader)
    assert text == EXAMPLE


def test_a_pipe_that_is_never_closed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "PIPE_TIMEOUT", 0.1)
    reader, writer = os.pipe()
    os.write(writer, b"accounts:")
    with pytest.raises(ConfigError, match="cannot be read: The pipe's writer does not end"):
        read_text(Path(f"/dev/fd/{reader}"))
    os.close(reader)
    os.close(writer)


def test_a_secret_in_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "secret"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="Not a regular file"):
        files.read(pipe)


def test_a_file_of_any_size_is_not_taken_into_memory(tmp_path: Path) -> None:
    large = tmp_path / "secret"
    with large.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="Larger than 16 MiB"):
        files.read(large)


def test_the_least_configuration_watches_all_jobs_with_the_default_credential(
    tmp_path: Path,
) -> None:
    text = "accounts: [{name: a, endpoint: 'https://a.westeurope.batch.azure.com/'}]"
    (account,) = loader.parse(text, "c.yaml", tmp_path).accounts
    assert account.endpoint == "https://a.westeurope.batch.azure.com"
    assert account.auth.method == "default"
    assert account.scope == "https://batch.core.windows.net//.default"
    assert [rule.id_regex for rule in account.jobs] == [".*"]
    assert account.request_timeout == 10.0


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9"]
)
def test_plain_http_is_allowed_on_loopback(endpoint: str, tmp_path: Path) -> None:
    text = json.dumps({"accounts": [{"name": "a", "endpoint": endpoint}]})
    assert loader.parse(text, "c.yaml", tmp_path).accounts[0].endpoint == endpoint


def test_secret_files_are_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "c.yaml").write_text(
        "accounts: [{name: a, endpoint: 'https://x.y', auth: {method: shared_key, key_file: key}}]"
    )
    (account,) = loader.load(tmp_path / "c.yaml").accounts
    assert account.auth.key_file == tmp_path / "key"
    assert len(secret.read_secret(account.auth)) == 64
    assert KEY not in repr(account)


def test_anchors_and_merge_keys_are_allowed(tmp_path: Path) -> None:
    text = """
accounts:
  - &first {name: a, endpoint: "https://a.b", jobs: [{id: x}]}
  - {<<: *first, name: b}
"""
    assert [a.name for a in loader.parse(text, "c.yaml", tmp_path).accounts] == ["a", "b"]


def test_a_rule_has_of_defaults_what_it_does_not_set(tmp_path: Path) -> None:
    text = """
defaults: {interval: 1m, collect: [tasks], stale_after: 7}
accounts:
  - name: a
    endpoint: "https://a.b"
    jobs: [{id: x, interval: 30s, tasks: [t]}, {id_regex: y, collect: []}]
  - {name: b, endpoint: "https://a.b"}
"""
    first, second = loader.parse(text, "c.yaml", tmp_path).accounts
    rules = (*first.jobs, *second.jobs)
    assert [rule.interval for rule in rules] == [30.0, 60.0, 60.0]
    assert [rule.stale_after for rule in rules] == [7, 7, 7]
    assert [rule.collectors for rule in rules] == [("tasks", "watched_tasks"), (), ("tasks",)]


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    text = "accounts: [{name: a, endpoint: 'https://a.b'}]"
    loaded = loader.parse(text, "c.yaml", tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        loaded.accounts = ()  # type: ignore[misc]
