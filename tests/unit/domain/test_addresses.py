"""Two spellings of one address are one place; two machines are two."""

import pytest

from domain.addresses import DEFAULT_PORTS, place_of
from drivers import host_uri

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "other",
    [
        "qemu+tcp://H1.Example/system",
        "qemu+tcp://h1.example./system",
        "qemu+tcp://h1.example:16509/system",
        "qemu+ssh://root@h1.example:22/system?keyfile=/etc/key",
        "qemu+tls://h1.example:16514/system?pkipath=/etc/pki",
    ],
)
def test_another_spelling_of_an_address_is_the_same_place(other: str) -> None:
    assert place_of(other) == place_of("qemu+tcp://h1.example/system")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("qemu+tcp://[::1]/system", "qemu+tcp://[0:0:0:0:0:0:0:1]/system"),
        ("qemu+tcp://10.0.0.1/system", "qemu+tcp://[::ffff:10.0.0.1]/system"),
    ],
)
def test_another_spelling_of_an_ip_address_is_the_same_place(one: str, other: str) -> None:
    assert place_of(one) == place_of(other)


def test_other_machines_ports_and_drivers_are_other_places() -> None:
    places = [
        "qemu+tcp://h1/system",
        "qemu+tcp://h2/system",
        "qemu+tcp://h1:16510/system",
        "test+tcp://h1/default",
        "test:///default",
        "test:///other",
        "qemu+tcp://h1:99999/system",
        "qemu+tcp://[h1/system",
    ]
    assert len({place_of(uri) for uri in places}) == len(places)


def test_the_usual_ports_are_those_that_the_driver_connects_to() -> None:
    assert DEFAULT_PORTS == host_uri.DEFAULT_PORTS
