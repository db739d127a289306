"""Which URIs a host may have: everything else is refused before libvirt sees it."""

import pytest

from domain.errors import Invalid
from drivers.host_uri import parse_host_uri

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("uri", "host", "port", "test_driver"),
    [
        ("qemu+tcp://10.0.0.1/system", "10.0.0.1", 16509, False),
        ("qemu+tls://h1.example/system?pkipath=/etc/pki/x", "h1.example", 16514, False),
        ("qemu+tcp://[fd00::1]:99/system", "fd00::1", 99, False),
        ("test+tcp://127.0.0.1/default", "127.0.0.1", 16509, True),
        ("test:///default", "", 0, True),
    ],
)
def test_a_listed_uri_leads_to_its_host(uri: str, host: str, port: int, test_driver: bool) -> None:
    parsed = parse_host_uri(uri)
    assert (parsed.uri, parsed.host, parsed.port, parsed.test_driver) == (
        uri,
        host,
        port,
        test_driver,
    )


def test_ssh_never_asks_on_the_engines_terminal() -> None:
    assert parse_host_uri("qemu+ssh://root@h1/system").uri == "qemu+ssh://root@h1/system?no_tty=1"


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("esx://h1/", "URI_SCHEME_UNSUPPORTED"),
        ("qemu:///system", "URI_SCHEME_UNSUPPORTED"),
        ("qemu+ext://h1/system?command=/bin/evil", "URI_SCHEME_UNSUPPORTED"),
        ("", "URI_SCHEME_UNSUPPORTED"),
        ("qemu+ssh://h1/system?command=/bin/evil", "URI_PARAMETER_UNSUPPORTED"),
        ("qemu+ssh://h1/system?netcat=/bin/evil", "URI_PARAMETER_UNSUPPORTED"),
        ("qemu+tls://h1/system?no_verify=1", "URI_PARAMETER_UNSUPPORTED"),
        ("qemu+tcp://h1/system#x", "URI_PARAMETER_UNSUPPORTED"),
        ("qemu+tcp:///system", "URI_MALFORMED"),
        ("qemu+tcp://h1/session", "URI_MALFORMED"),
        ("qemu+tcp://h1:notaport/system", "URI_MALFORMED"),
        ("qemu+ssh://-oProxyCommand=x/system", "URI_MALFORMED"),
        ("qemu+ssh://-l@h1/system", "URI_MALFORMED"),
        ("qemu+tcp://root:secret@h1/system", "URI_MALFORMED"),
        ("test://default", "URI_MALFORMED"),
    ],
)
def test_any_other_uri_is_refused_without_a_password_in_the_message(uri: str, code: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_host_uri(uri)
    assert refused.value.code == code
    assert "secret" not in str(refused.value)
