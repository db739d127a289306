"""Where the engine is found, and who gets to see which token."""

from pathlib import Path

import pytest

from cli.endpoint import find_endpoint
from cli.failures import Exit, Failure
from tests.unit.cli.fake_engine import Desk

pytestmark = pytest.mark.unit


@pytest.fixture
def var(tmp_path: Path) -> Path:
    """The folder of an engine of this machine."""
    (tmp_path / "token").write_text("from-var\n")
    (tmp_path / "token").chmod(0o600)
    (tmp_path / "api.url").write_text("http://127.0.0.1:9999\n")
    return tmp_path


def bearer(given: str | None, env: dict[str, str]) -> str | None:
    return find_endpoint(given, env).headers().get("Authorization")


def test_the_address_is_found_in_the_order_of_closeness(var: Path, tmp_path: Path) -> None:
    env = {"HOLDFAST_VAR": str(var), "HOLDFAST_URL": "http://10.0.0.1:1/"}
    assert find_endpoint("http://10.0.0.2:2", env).url == "http://10.0.0.2:2"
    assert find_endpoint(None, env).url == "http://10.0.0.1:1"
    assert find_endpoint(None, {"HOLDFAST_VAR": str(var)}).url == "http://127.0.0.1:9999"
    empty = {"HOLDFAST_VAR": str(tmp_path / "none")}
    assert find_endpoint(None, empty).url == "http://127.0.0.1:8420"


def test_the_token_is_found_in_the_order_of_closeness(var: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("from-file\n")
    env = {"HOLDFAST_VAR": str(var), "HOLDFAST_TOKEN_FILE": str(tmp_path / "other")}
    assert bearer(None, env | {"HOLDFAST_TOKEN": "from-env"}) == "Bearer from-env"
    assert bearer(None, env) == "Bearer from-file"
    assert bearer(None, {"HOLDFAST_VAR": str(var)}) == "Bearer from-var"
    assert bearer(None, {"HOLDFAST_VAR": str(tmp_path / "none")}) is None


@pytest.mark.parametrize("url", ["http://localhost:1", "http://[::1]:1", "http://127.0.0.9:1"])
def test_the_token_of_this_machine_is_sent_to_this_machine(var: Path, url: str) -> None:
    assert bearer(url, {"HOLDFAST_VAR": str(var)}) == "Bearer from-var"


@pytest.mark.parametrize("url", ["http://10.0.0.1:1", "https://localhost.example.org"])
def test_the_token_of_this_machine_is_sent_nowhere_else(var: Path, url: str) -> None:
    assert bearer(url, {"HOLDFAST_VAR": str(var)}) is None
    given = {"HOLDFAST_VAR": str(var), "HOLDFAST_TOKEN": "meant-for-it"}
    assert bearer(url, given) == "Bearer meant-for-it"


def test_a_token_that_others_can_read_is_not_used(var: Path) -> None:
    (var / "token").chmod(0o640)
    with pytest.raises(Failure) as caught:
        find_endpoint(None, {"HOLDFAST_VAR": str(var)})
    assert caught.value.code is Exit.NOT_LOGGED_IN
    assert caught.value.document["next_step"] == f"chmod 600 {var / 'token'}"


def test_a_token_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        find_endpoint(None, {"HOLDFAST_TOKEN_FILE": str(tmp_path / "gone")})
    assert caught.value.code is Exit.NOT_LOGGED_IN
    assert str(tmp_path / "gone") in caught.value.document["detail"]


def test_what_is_no_token_is_not_put_into_a_header(tmp_path: Path) -> None:
    with pytest.raises(Failure) as caught:
        find_endpoint(None, {"HOLDFAST_TOKEN": "two words\nand a line"})
    assert caught.value.document["code"] == "TOKEN_MALFORMED"
    assert "two words" not in str(caught.value.document)


@pytest.mark.parametrize("url", ["ftp://x", "8420", "http://", "http://u:p@h", "http://h:port"])
def test_an_address_that_is_none_is_refused(desk: Desk, url: str) -> None:
    result = desk.run("--url", url, "vm", "list")
    assert result.exit_code == Exit.USAGE
    assert "URL_INVALID" in result.stderr
    assert "u:p" not in result.output


def test_the_token_does_not_show_in_a_repr(var: Path) -> None:
    assert "from-var" not in repr(find_endpoint(None, {"HOLDFAST_VAR": str(var)}))
