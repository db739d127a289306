"""The key file and what is sealed with it."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from domain.errors import Invalid
from drivers.secrets import SecretBox

pytestmark = pytest.mark.unit

VALUES = {"password": "s3kr1t ü\n", "community": ""}


def test_what_was_sealed_comes_back_and_is_not_readable_in_between(tmp_path: Path) -> None:
    box = SecretBox.open_or_create(tmp_path / "keys" / "secret.key")
    sealed = box.seal(VALUES)
    opened = box.open(sealed)
    assert {name: value.get_secret_value() for name, value in opened.items()} == VALUES
    assert b"s3kr1t" not in sealed
    assert "s3kr1t" not in repr(opened)


def test_the_key_file_is_its_owners_only_and_serves_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    sealed = SecretBox.open_or_create(path).seal(VALUES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SecretBox.open_or_create(path).open(sealed)["community"].get_secret_value() == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


def test_many_who_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    with ThreadPoolExecutor(8) as pool:
        boxes = list(pool.map(lambda _: SecretBox.open_or_create(path), range(16)))
    sealed = boxes[0].seal(VALUES)
    assert all(box.open(sealed) for box in boxes)


@pytest.mark.parametrize("damage", [lambda sealed: sealed[:-4], lambda _: b"", lambda _: b"\xff"])
def test_a_damaged_secret_is_refused(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    box = SecretBox.open_or_create(tmp_path / "secret.key")
    with pytest.raises(Invalid, match="SECRET_KEY_MISMATCH"):
        box.open(damage(box.seal(VALUES)))


def test_a_key_that_does_not_fit_is_named_as_the_reason() -> None:
    sealed = SecretBox(Fernet.generate_key()).seal(VALUES)
    with pytest.raises(Invalid) as refused:
        SecretBox(Fernet.generate_key()).open(sealed)
    assert refused.value.code == "SECRET_KEY_MISMATCH"
    assert "restore the key file" in refused.value.next_step


def test_a_key_file_that_others_may_read_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    SecretBox.open_or_create(path)
    path.chmod(0o640)
    with pytest.raises(Invalid, match="SECRET_KEY_EXPOSED"):
        SecretBox.open_or_create(path)


def test_a_key_file_with_something_else_in_it_is_kept_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    path.write_text("not a key\n")
    path.chmod(0o600)
    with pytest.raises(Invalid, match="SECRET_KEY_MALFORMED"):
        SecretBox.open_or_create(path)
    assert path.read_text() == "not a key\n"
