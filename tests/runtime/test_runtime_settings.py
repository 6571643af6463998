from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from ashi.contracts.errors import UsageError
from ashi.contracts.timeframe import parse_timeframes
from ashi.runtime.settings import Secret, Settings, SettingsError
from ashi.runtime.settings.catalogue import CATALOGUE
from ashi.runtime.settings.document import settings_document
from ashi.runtime.settings.environment import unknown_variables

ROOT = Path(__file__).parents[2]
SASL = {
    "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
    "ASHI_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "ASHI_KAFKA_USERNAME": "ashi",
    "ASHI_KAFKA_PASSWORD": "hunter2",
}


def refusal(**environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.from_environment(environ)
    return str(caught.value)


def test_every_field_of_the_settings_is_in_the_catalogue_and_the_other_way_round() -> None:
    read = [setting.field for setting in CATALOGUE if setting.parse is not None]
    assert read == [field.name for field in dataclasses.fields(Settings)]


def test_the_document_of_the_settings_is_up_to_date() -> None:
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == settings_document(), (
        "run: python -m ashi.runtime.settings > docs/settings.md"
    )


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings.kafka_bootstrap == "127.0.0.1:9092"
    assert settings.timeframes == parse_timeframes("1m,5m,1h")
    assert (settings.partitions, settings.replication) == (8, None)
    assert (settings.allowed_lateness_us, settings.correction_horizon_us) == (2_000_000, 120_000_000)
    assert (settings.checkpoint_interval_us, settings.session_timeout_us) == (500_000, 10_000_000)
    assert settings.quiet_close is True
    assert settings.kafka_password is None


def test_a_variable_that_is_empty_counts_as_not_set() -> None:
    everything_empty = {setting.variable: "" for setting in CATALOGUE}
    assert Settings.from_environment(everything_empty) == Settings.from_environment({})


def test_the_environment_of_the_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASHI_PARTITIONS", " 3 ")
    assert Settings.from_environment().partitions == 3


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("ASHI_PARTITIONS", "none", "a whole number from 1"),
        ("ASHI_ALLOWED_LATENESS", "2", "a whole number and a unit, such as 500ms"),
        ("ASHI_SESSION_TIMEOUT", "5s", "from 6s to 30m"),
        ("ASHI_CHECKPOINT_INTERVAL", "49ms", "from 50ms to 30s"),
        ("ASHI_CHECKPOINT_INTERVAL", "31s", "from 50ms to 30s"),
        ("ASHI_TIMEFRAMES", "7m", "does not divide a day"),
        ("ASHI_KAFKA_BOOTSTRAP", "localhost", "127.0.0.1:9092"),
        ("ASHI_KAFKA_SECURITY_PROTOCOL", "TLS", "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL"),
        ("ASHI_KAFKA_CA_FILE", "/nowhere/ca.pem", "a file that exists"),
        ("ASHI_QUIET_CLOSE", "yes", "on or off"),
        ("ASHI_METRICS_PORT", "70000", "from 0 to 65535"),
        ("ASHI_INSTANCE_ID", "x" * 201, "at most 200 characters, it has 201"),
        ("ASHI_INSTANCE_ID", "pod 0", "letters, digits, dots, hyphens and underscores"),
        ("ASHI_LOG_LEVEL", "loud", "debug, info, warning or error"),
    ],
)
def test_a_wrong_value_is_refused_by_name_with_what_to_write(variable: str, value: str, remedy: str) -> None:
    message = refusal(**{variable: value})
    assert variable in message
    assert repr(value) in message
    assert remedy in message


def test_a_wrong_setting_is_wrong_usage() -> None:
    assert issubclass(SettingsError, UsageError)


def test_a_wrong_secret_is_refused_without_being_shown() -> None:
    message = refusal(ASHI_STORAGE="ashi:hunter2@db")
    assert "ASHI_STORAGE" in message
    assert "sqlite:////" in message
    assert "hunter2" not in message


def test_secrets_appear_in_no_representation() -> None:
    settings = Settings.from_environment({**SASL, "ASHI_STORAGE": "postgresql://ashi:hunter3@db/ashi"})
    assert settings.kafka_password == Secret("hunter2")
    assert settings.kafka_password.reveal() == "hunter2"
    shown = f"{settings!r} {settings} {settings.kafka_password} {[settings.kafka_password]}"
    assert "hunter" not in shown


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_is_read_from_a_file_without_its_last_newline(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(b" hunter2\n" + b"x" + ending.encode())
    environ = {key: value for key, value in SASL.items() if key != "ASHI_KAFKA_PASSWORD"}
    settings = Settings.from_environment({**environ, "ASHI_KAFKA_PASSWORD_FILE": str(path)})
    assert settings.kafka_password == Secret(" hunter2\nx")


def test_a_secret_of_a_file_is_read_again_when_the_file_is_replaced_and_kept_while_it_holds_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "token"
    path.write_text("sixteen-letters-1\n")
    settings = Settings.from_environment({"ASHI_CHART_TOKEN_FILE": str(path)})
    token, as_text = settings.chart_token, repr(settings)
    assert token is not None
    assert token.reveal() == "sixteen-letters-1"
    path.write_text("sixteen-letters-22\n")
    assert token.reveal() == "sixteen-letters-22"
    assert not caplog.text
    for bad in ("", "short-s3cret", "with a space s3cret"):
        path.write_text(bad)
        assert token.reveal() == "sixteen-letters-22"
    path.unlink()
    assert token.reveal() == "sixteen-letters-22"
    assert caplog.text.count("a secret cannot be read again, going on with that of before") == 4
    assert "s3cret" not in caplog.text
    (tmp_path / "next").write_text("sixteen-letters-333")
    (tmp_path / "next").rename(path)
    assert token.reveal() == "sixteen-letters-333"
    assert repr(settings) == as_text
    assert settings == Settings.from_environment({"ASHI_CHART_TOKEN": "sixteen-letters-1"}), "as it began"


def test_the_storage_is_read_from_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "storage"
    path.write_text("sqlite:////tmp/x.db\n")
    assert Settings.from_environment({"ASHI_STORAGE_FILE": str(path)}).storage == "sqlite:////tmp/x.db"


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    message = refusal(**SASL, ASHI_KAFKA_PASSWORD_FILE=str(tmp_path / "password"))
    assert "ASHI_KAFKA_PASSWORD and ASHI_KAFKA_PASSWORD_FILE are both given" in message


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"\xff", "not UTF-8"), (b"\n", "is empty"), (b"", "is empty")]
)
def test_a_secret_file_that_cannot_be_used_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    message = refusal(ASHI_STORAGE_FILE=str(path))
    assert "ASHI_STORAGE_FILE" in message
    assert str(path) in message
    assert why in message


@pytest.mark.parametrize("missing", ["ASHI_KAFKA_SASL_MECHANISM", "ASHI_KAFKA_USERNAME", "ASHI_KAFKA_PASSWORD"])
def test_a_login_that_lacks_a_part_is_refused(missing: str) -> None:
    assert f"{missing} must be set" in refusal(**{key: value for key, value in SASL.items() if key != missing})


def test_a_password_that_would_not_be_used_is_refused() -> None:
    message = refusal(ASHI_KAFKA_PASSWORD="hunter2")
    assert "does not log in" in message
    assert "hunter2" not in message


def test_certificates_for_an_unencrypted_connection_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("certificate")
    assert "not encrypted" in refusal(ASHI_KAFKA_CA_FILE=str(path))


def test_a_horizon_below_the_lateness_is_refused() -> None:
    message = refusal(ASHI_CORRECTION_HORIZON="1s")
    assert "ASHI_CORRECTION_HORIZON '1s' is less than ASHI_ALLOWED_LATENESS '2s'" in message


def test_a_horizon_equal_to_the_lateness_is_allowed() -> None:
    settings = Settings.from_environment({"ASHI_CORRECTION_HORIZON": "0s", "ASHI_ALLOWED_LATENESS": "0s"})
    assert settings.correction_horizon_us == settings.allowed_lateness_us == 0


def test_a_horizon_of_six_hours_is_allowed_with_minutes_but_not_with_seconds() -> None:
    environ = {"ASHI_CORRECTION_HORIZON": "6h"}
    assert Settings.from_environment(environ).correction_horizon_us == 21_600_000_000
    message = refusal(**environ, ASHI_TIMEFRAMES="1s,1m")
    assert "21602 windows" in message
    assert "at most 512 KB" in message


def test_the_longest_horizon_that_a_refusal_names_is_allowed() -> None:
    # (1308 + 2) windows * 400 bytes are just below 512 KB.
    environ = {"ASHI_TIMEFRAMES": "1s", "ASHI_CORRECTION_HORIZON": "1308s"}
    assert Settings.from_environment(environ).correction_horizon_us == 1_308_000_000
    assert "write 1308s or less" in refusal(**environ | {"ASHI_CORRECTION_HORIZON": "1309s"})


def test_a_checkpoint_must_fit_into_the_session_three_times() -> None:
    environ = {"ASHI_SESSION_TIMEOUT": "6s", "ASHI_CHECKPOINT_INTERVAL": "2s"}
    assert Settings.from_environment(environ).checkpoint_interval_us == 2_000_000
    message = refusal(**environ | {"ASHI_CHECKPOINT_INTERVAL": "2001ms"})
    assert "ASHI_CHECKPOINT_INTERVAL '2001ms' is more than a third of ASHI_SESSION_TIMEOUT '6s'" in message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("ASHI_PARTITION", "ASHI_PARTITIONS"),
        ("ASHI_METRIC_PORT", "ASHI_METRICS_PORT"),
        ("ASHI_KAFKA_BOOTSTRAP_SERVERS", "ASHI_KAFKA_BOOTSTRAP"),
        ("ASHI_KAFKA_PASWORD_FILE", "ASHI_KAFKA_PASSWORD_FILE"),
        ("ASHI_STORAGE_URL", "ASHI_STORAGE"),
    ],
)
def test_a_near_miss_of_a_name_is_warned_about(typed: str, meant: str) -> None:
    [warning] = unknown_variables({typed: "x"})
    assert typed in warning
    assert f"did you mean {meant}?" in warning


def test_what_kubernetes_sets_and_what_is_known_is_not_warned_about() -> None:
    environ = dict.fromkeys([setting.variable for setting in CATALOGUE], "x") | dict.fromkeys(
        [
            "ASHI_STORAGE_FILE",
            "ASHI_METRICS_SERVICE_HOST",
            "ASHI_METRICS_SERVICE_PORT",
            "ASHI_METRICS_SERVICE_PORT_HTTP",
            "ASHI_METRICS_PORT_9090_TCP_ADDR",
            "PATH",
        ],
        "x",
    )
    environ["ASHI_KAFKA_PORT"] = "tcp://10.0.0.1:9092"
    assert unknown_variables(environ) == []


def test_unknown_variables_stop_nothing() -> None:
    assert Settings.from_environment({"ASHI_KAFKA_SERVICE_HOST": "10.0.0.1"}) == Settings.from_environment({})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"ASHI_KAFKA_TOKEN_COMMAND": ""}, "set one of ASHI_KAFKA_TOKEN_FILE, ASHI_KAFKA_TOKEN_COMMAND"),
        (
            {"ASHI_KAFKA_TOKEN_COMMAND": "print 'it"},
            "TOKEN_COMMAND is not a command line: no closing quotation",
        ),
        ({"ASHI_KAFKA_USERNAME": "ashi"}, "ASHI_KAFKA_USERNAME is set but .* logs in by a token"),
        ({"ASHI_KAFKA_SECURITY_PROTOCOL": "SSL"}, "does not log in"),
        (
            {"ASHI_KAFKA_SASL_MECHANISM": "PLAIN", "ASHI_KAFKA_USERNAME": "a", "ASHI_KAFKA_PASSWORD": "b"},
            "ASHI_KAFKA_TOKEN_COMMAND is set but .* logs in by a name and a password",
        ),
    ],
)
def test_a_token_is_for_who_logs_in_by_one_and_by_nothing_else(wrong: dict[str, str], words: str) -> None:
    right = {
        "ASHI_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "ASHI_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "ASHI_KAFKA_TOKEN_COMMAND": "print-token",
    }
    assert Settings.from_environment(right).kafka_token_command == "print-token"
    with pytest.raises(SettingsError, match=words):
        Settings.from_environment({name: value for name, value in (right | wrong).items() if value})
