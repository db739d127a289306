"""Which fence device settings are one power controller."""

import pytest

from domain.controllers import controller_of

pytestmark = pytest.mark.unit

KNOWN = {"ip": "bmc1", "ipport": "623", "plug": "7"}


@pytest.mark.parametrize(
    "other",
    [
        KNOWN | {"ip": "BMC1."},
        {"ipaddr": "bmc1", "ipport": "623", "port": "7"},
        KNOWN | {"power-timeout": "40", "delay": "3", "login_timeout": "9", "retry_on": "2"},
        KNOWN | {"username": "ann"},
        KNOWN | {"login": "bob"},
    ],
    ids=["case", "old-names", "timing", "username", "login"],
)
def test_the_same_controller_in_other_words_is_the_same(other: dict[str, str]) -> None:
    assert controller_of("fence_a", other) == controller_of("fence_a", KNOWN)


@pytest.mark.parametrize("name", ["ip", "ipport", "plug"])
def test_another_address_or_outlet_is_another_controller(name: str) -> None:
    assert controller_of("fence_a", KNOWN | {name: "9"}) != controller_of("fence_a", KNOWN)


def test_another_agent_is_another_controller() -> None:
    assert controller_of("fence_a", KNOWN) != controller_of("fence_b", KNOWN)


def test_options_that_name_no_controller_are_compared_with_none() -> None:
    assert controller_of("fence_a", {"username": "ann", "delay": "3"}) is None
