"""The web configuration file: what is accepted, and what each mistake is answered with."""

from __future__ import annotations

import logging
import re
import ssl
import subprocess
from pathlib import Path

import pytest
import yaml

from exporter.config.problems import ConfigError
from exporter.config.validation import fields_by_key
from exporter.web.server import web_config as config
from exporter.web.server import web_config_file as config_file
from exporter.web.server.web_config_file import Settings, WebConfigFile
from tests.certificates import Authority
from tests.process import finish

ROOT = Path(__file__).parent.parent
BAD = sorted((Path(__file__).parent / "bad_web_configs").glob("*.yaml"))
HASH = "$2y$04$nTzJBYqxFBvfxWmz5dFhue8fQdk9qK9b9nJbLN98uZ1MURn0iHVOO"


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """An authority whose files are beside the web configuration."""
    return Authority(tmp_path)


def write(folder: Path, text: str) -> Path:
    file = folder / "web.yaml"
    file.write_text(text)
    return file


def problem(file: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        config_file.load(file)
    (text,) = caught.value.problems
    return text.removeprefix(f"{file}:")


@pytest.mark.parametrize("file", BAD, ids=lambda file: file.stem)
def test_a_mistake_is_answered_with_line_path_and_cure_and_shows_no_secret(file: Path) -> None:
    """The comment lines at the top of each file are the whole answer, without the file's name."""
    text = file.read_text()
    expected = [line[2:] for line in text.splitlines() if line.startswith("# ")]
    with pytest.raises(ConfigError) as caught:
        config_file.load(file)
    folder = f"{file.parent}/"
    problems = [
        problem.removeprefix(f"{file}:").replace(folder, "") for problem in caught.value.problems
    ]
    assert problems == expected
    assert not re.search("hush|12345678|zoubFi6", repr(caught.value))
    assert caught.value.__cause__ is None


async def test_the_programs_answer_is_exit_status_2_with_the_problems() -> None:
    file = Path(__file__).parent / "bad_web_configs" / "several_mistakes.yaml"
    status, _, errors = await finish(
        "demo", f"--web.config.file={file}", "--web.listen-address=127.0.0.1:0"
    )
    assert status == 2
    lines = [line for line in errors.splitlines() if line.startswith(str(file))]
    assert len(lines) == 3
    assert "hush" not in errors and "Traceback" not in errors


def test_an_empty_file_and_empty_sections_say_nothing(tmp_path: Path) -> None:
    sections = "tls_server_config:\nhttp_server_config: {headers: }\nbasic_auth_users:\nrate_limit:"
    for text in ("", "# nothing\n", sections):
        assert config_file.load(write(tmp_path, text)) == Settings()


def test_the_example_names_every_key(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "web-config.example.yaml").read_text()
    named = set(re.findall(r"^[\s#]*([A-Za-z_0-9-]+):", text, re.MULTILINE))
    for model in (
        config.WebConfig,
        config.TlsServerConfig,
        config.HttpServerConfig,
        config.Headers,
        config.RateLimit,
    ):
        missing = set(fields_by_key(model)) - named
        assert not missing, f"edit deploy/web-config.example.yaml: show {', '.join(missing)}"


def example_with_files(folder: Path, authority: Authority) -> Path:
    """The example, beside the files that it names."""
    text = (ROOT / "deploy" / "web-config.example.yaml").read_text()
    tls = yaml.safe_load(text)["tls_server_config"]
    certificate, key = authority.server()
    certificate.rename(folder / tls["cert_file"])
    key.rename(folder / tls["key_file"])
    return write(folder, text)


def test_the_example_is_valid(tmp_path: Path, authority: Authority) -> None:
    settings = config_file.load(example_with_files(tmp_path, authority))
    assert settings.context is not None
    assert settings.config.basic_auth_users


def test_promtool_accepts_the_example(promtool: Path, tmp_path: Path, authority: Authority) -> None:
    file = example_with_files(tmp_path, authority)
    result = subprocess.run(
        [promtool, "check", "web-config", file], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, f"{file} SUCCESS\n")


def tls(**settings: object) -> str:
    return yaml.safe_dump(
        {"tls_server_config": {"cert_file": "server.crt", "key_file": "server.key", **settings}}
    )


def test_a_key_that_does_not_fit_is_told(tmp_path: Path, authority: Authority) -> None:
    authority.server()
    authority.server("other")
    assert problem(write(tmp_path, tls(key_file="other.key"))) == (
        "3: tls_server_config.key_file: the key does not belong to the certificate"
    )


def test_an_encrypted_key_is_told_and_nobody_is_asked_for_its_passphrase(
    tmp_path: Path, authority: Authority
) -> None:
    authority.server()
    (tmp_path / "server.key").write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert problem(write(tmp_path, tls())) == (
        "3: tls_server_config.key_file: the key is encrypted: write it without a passphrase"
    )


def test_damaged_pem_is_told(tmp_path: Path, authority: Authority) -> None:
    authority.server()
    file = write(
        tmp_path, tls(client_auth_type="RequireAndVerifyClientCert", client_ca_file="ca.crt")
    )
    for damaged, kind, answer in (
        ("ca.crt", "CERTIFICATE", "tls_server_config.client_ca_file: holds a certificate"),
        ("server.crt", "CERTIFICATE", "tls_server_config: certificate and key cannot be used: "),
        ("server.key", "PRIVATE KEY", "tls_server_config: certificate and key cannot be used: "),
    ):
        before = (tmp_path / damaged).read_text()
        (tmp_path / damaged).write_text(f"-----BEGIN {kind}-----\nhush\n-----END {kind}-----\n")
        assert answer in problem(file)
        assert "hush" not in problem(file)
        (tmp_path / damaged).write_text(before)


def test_pem_may_stand_in_the_file_and_is_shown_nowhere(
    tmp_path: Path, authority: Authority
) -> None:
    certificate, key = authority.server()
    pem = {"cert": certificate.read_text(), "key": key.read_text()}
    text = yaml.safe_dump({"tls_server_config": pem, "basic_auth_users": {"alice": HASH}})
    settings = config_file.load(write(tmp_path, text))
    assert settings.context is not None
    assert not re.search(r"BEGIN|\$2y", repr(settings))


def test_versions_ciphers_and_curve_become_those_of_openssl(
    tmp_path: Path, authority: Authority
) -> None:
    authority.server()

    def context(**settings: object) -> ssl.SSLContext:
        built = config_file.load(write(tmp_path, tls(**settings))).context
        assert built is not None
        return built

    assert context().minimum_version == ssl.TLSVersion.TLSv1_2
    assert context(min_version="TLS10").minimum_version == ssl.TLSVersion.TLSv1_2
    assert context(min_version="TLS13").minimum_version == ssl.TLSVersion.TLSv1_3
    assert context(max_version="TLS12").maximum_version == ssl.TLSVersion.TLSv1_2
    suites = context(
        cipher_suites=[
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ]
    ).get_ciphers()
    assert [suite["name"] for suite in suites if suite["protocol"] != "TLSv1.3"] == [
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ]
    only_13 = context(cipher_suites=["TLS_AES_128_GCM_SHA256"])
    assert only_13.minimum_version == ssl.TLSVersion.TLSv1_3
    for curve in ("CurveP256", "CurveP384", "CurveP521"):
        context(curve_preferences=[curve])
    with_order = context().options & ssl.OP_CIPHER_SERVER_PREFERENCE
    without = context(prefer_server_cipher_suites=False).options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert with_order and not without


def test_a_curve_that_this_python_lacks_is_refused_by_name(
    tmp_path: Path, authority: Authority
) -> None:
    authority.server()
    file = write(tmp_path, tls(curve_preferences=["X25519"]))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ecdh_curve("X25519")
    except ssl.SSLError:
        with pytest.raises(ConfigError, match="curve_preferences: this Python cannot use X25519"):
            config_file.load(file)
    else:
        assert config_file.load(file).context is not None


def test_a_change_is_read_at_most_once_a_second(tmp_path: Path) -> None:
    clock = Clock()
    file = write(tmp_path, "")
    settings = WebConfigFile(file, clock=clock)
    write(tmp_path, f"basic_auth_users: {{alice: {HASH}}}")
    clock.now = 0.9
    assert not settings().config.basic_auth_users
    clock.now = 1.0
    assert set(settings().config.basic_auth_users) == {"alice"}


def test_a_change_that_cannot_be_used_is_told_once_and_changes_nothing(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    certificate, _ = authority.server()
    good = tls() + f"basic_auth_users: {{alice: {HASH}}}"
    file = write(tmp_path, good)
    settings = WebConfigFile(file, clock=clock)
    before = settings()
    pem = certificate.read_text()

    def damage_the_file() -> None:
        write(tmp_path, good + "\nbasic_auth_usrs: {}")

    def begin_to_write_the_file() -> None:
        write(tmp_path, "")

    def remove_the_file() -> None:
        file.unlink()

    def damage_the_certificate() -> None:
        write(tmp_path, good)
        certificate.write_text("hush")

    for change in (
        damage_the_file,
        begin_to_write_the_file,
        remove_the_file,
        damage_the_certificate,
    ):
        caplog.clear()
        change()
        for _ in range(3):
            clock.now += 1
            assert settings() is before
        (line,) = caplog.records
        assert line.levelname == "ERROR"
        assert vars(line)["problem"].startswith(str(file))
        assert "hush" not in caplog.text + str(vars(line))
    certificate.write_text(pem)
    clock.now += 1
    assert settings() is not before
    assert settings().config == before.config


def test_braces_switch_everything_off(tmp_path: Path) -> None:
    clock = Clock()
    settings = WebConfigFile(write(tmp_path, f"basic_auth_users: {{alice: {HASH}}}"), clock=clock)
    write(tmp_path, "{}")
    clock.now += 1
    assert settings() == Settings()


def test_tls_is_switched_on_and_off_by_a_restart_only_and_the_rest_at_once(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    authority.server()
    users = f"basic_auth_users: {{alice: {HASH}}}"
    clock = Clock()
    for before, after, switched in ((tls(), users, "off"), ("", tls() + users, "on")):
        caplog.clear()
        settings = WebConfigFile(write(tmp_path, before), clock=clock)
        context = settings().context
        write(tmp_path, after)
        clock.now += 1
        assert settings().context is context
        assert settings().config.basic_auth_users
        clock.now += 1
        assert settings().context is context
        (line,) = caplog.messages
        assert line == f"TLS is switched {switched} by a restart only: all else is in force"
