"""Secrets of fence devices: never in the argument list, never in anything printed."""

import pytest

from cli.nouns import fence
from tests.unit.cli.fake_engine import Desk, host, operation, plain, uid

pytestmark = pytest.mark.unit

SECRET = "hunter2 & more"
ADD = ["fence", "add", "h1", "bmc", "--agent", "fence_ipmilan", "--option", "ip=10.0.0.1"]


@pytest.fixture
def ready(desk: Desk) -> Desk:
    desk.has(host())
    desk.engine.on("POST", "/fence-devices", plain(operation(kind="fence.add", summary="added")))
    return desk


def test_a_secret_is_asked_for_without_an_echo(
    ready: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "on_terminal", lambda: True)
    result = ready.run(*ADD, "--secret", "password", given=f"{SECRET}\n")
    assert result.exit_code == 0, result.output
    assert ready.engine.body() == {
        "host_id": str(uid("h1")),
        "name": "bmc",
        "agent": "fence_ipmilan",
        "options": {"ip": "10.0.0.1"},
        "secrets": {"password": SECRET},
        "deadline_s": 10.0,
    }
    assert SECRET not in result.output


def test_an_interrupt_at_the_prompt_adds_nothing(
    ready: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "on_terminal", lambda: True)
    result = ready.run(*ADD, "--secret", "password", given="")
    assert result.exit_code == 130
    assert ready.engine.posted() == []


def test_a_secret_comes_from_a_variable_or_standard_input(
    ready: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BMC_SECRET", SECRET)
    words = ["--secret-env", "password=BMC_SECRET", "--secret-stdin", "snmp_priv_passwd"]
    result = ready.run(*ADD, *words, "--deadline", "3s", given="other\n")
    assert result.exit_code == 0, result.output
    body = ready.engine.body()
    assert body["secrets"] == {"password": SECRET, "snmp_priv_passwd": "other"}
    assert body["deadline_s"] == 3.0
    assert SECRET not in result.output


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--option", f"password={SECRET}"], "SECRET_IN_ARGUMENTS"),
        (["--option", f"snmp_auth_passwd={SECRET}"], "SECRET_IN_ARGUMENTS"),
        (["--secret", f"password={SECRET}"], "SECRET_IN_ARGUMENTS"),
        (["--secret-stdin", f"password={SECRET}"], "SECRET_IN_ARGUMENTS"),
        (["--secret-env", f"password={SECRET}"], "SECRET_MISSING"),
        (["--secret", "password"], "SECRET_MISSING"),
        (["--secret-stdin", "password"], "SECRET_MISSING"),
        (["--secret", "password", "--secret-stdin", "password"], "SECRET_NAMED_TWICE"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json"])
def test_a_secret_that_is_misplaced_or_missing_is_refused_unseen(
    ready: Desk, words: list[str], code: str, output: str
) -> None:
    result = ready.run(*ADD, *words, "-o", output, given="")
    assert result.exit_code == 2
    assert code in result.stderr
    assert SECRET not in result.output
    assert ready.engine.posted() == []


def test_an_option_without_a_value_is_refused(ready: Desk) -> None:
    result = ready.run(*ADD, "--option", "lanplus")
    assert result.exit_code == 2
    assert "NAME=VALUE" in result.stderr
