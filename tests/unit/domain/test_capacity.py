"""How many vCPUs a host may promise."""

import pytest

from domain.capacity import vcpus_allowed

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("cpus", "overcommit", "most"),
    [
        (16, 4.0, 64),
        (100, 0.29, 29),  # the product of the two is a little less
        (10, 0.7, 7),
        (3, 1.5, 4),
        (1, 0.1, 0),
        (16, None, None),
        (0, 4.0, None),
    ],
)
def test_a_limit_is_a_whole_number_of_vcpus_rounded_down_or_none(
    cpus: int, overcommit: float | None, most: int | None
) -> None:
    assert vcpus_allowed(cpus, overcommit) == most
