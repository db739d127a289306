"""What is taken for an SSH key, and what is not."""

import subprocess
from pathlib import Path

import pytest

from domain.ssh_access import address_of, fingerprint, wrong_with_host_key, wrong_with_private_key

pytestmark = pytest.mark.unit
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f"


def made(folder: Path, kind: str, passphrase: str, *more: str) -> Path:
    path = folder / kind
    command = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path), *more]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_what_ssh_keygen_makes_is_taken(tmp_path: Path, kind: str) -> None:
    path = made(tmp_path, kind, "")
    assert wrong_with_private_key(path.read_text()) is None
    public = " ".join(path.with_suffix(".pub").read_text().split()[:2])
    assert wrong_with_host_key(public) is None
    shown = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, check=True)
    assert fingerprint(public) in shown.stdout.decode()


def test_a_key_in_the_older_form_is_taken(tmp_path: Path) -> None:
    path = made(tmp_path, "rsa", "", "-m", "PKCS8")
    assert path.read_text().startswith("-----BEGIN PRIVATE KEY")
    assert wrong_with_private_key(path.read_text()) is None


@pytest.mark.parametrize("form", [(), ("-m", "PKCS8")])
def test_a_key_with_a_passphrase_is_refused(tmp_path: Path, form: tuple[str, ...]) -> None:
    path = made(tmp_path, "rsa", "sesame", *form)
    assert "passphrase" in (wrong_with_private_key(path.read_text()) or "")


@pytest.mark.parametrize("text", ["", "hunter2", KEY, "-----BEGIN OPENSSH PRIVATE KEY-----\n"])
def test_what_is_no_private_key_is_refused_without_repeating_it(text: str) -> None:
    why = wrong_with_private_key(text)
    assert why is not None
    assert not text or text not in why


def test_a_public_key_has_to_be_of_the_kind_that_it_says() -> None:
    assert wrong_with_host_key(KEY) is None
    assert "something else" in (wrong_with_host_key(f"ssh-rsa {KEY.split()[1]}") or "")


def test_the_address_is_that_of_libvirt() -> None:
    assert address_of("qemu+tls://h1.example.net:16514/system") == "h1.example.net"
    assert address_of("qemu+tcp://[fd00::7]/system") == "fd00::7"
    assert address_of("qemu+tcp://[::1]/system") == "::1"
    assert address_of("test:///default") is None


def test_no_address_can_be_taken_for_an_option() -> None:
    assert address_of("qemu+tcp://-oProxyCommand=x/system") is None
