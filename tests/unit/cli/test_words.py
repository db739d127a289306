"""Commands spell choices out, since importing the domain would slow each: they stay the same."""

from enum import StrEnum

import pytest

from cli.nouns import cluster, host, vm_options, vm_parts
from domain import disarming, failback, inventory, planned, profiles

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("spelt", "meant"),
    [
        (cluster.Profile, profiles.Profile),
        (cluster.DisarmMode, disarming.DisarmMode),
        (host.PlannedVms, planned.PlannedVms),
        (vm_options.OnIoError, inventory.OnIoError),
        (vm_options.Failback, failback.Failback),
        (vm_parts.OnHang, inventory.OnHang),
    ],
)
def test_the_choices_of_a_command_are_those_of_the_engine(
    spelt: type[StrEnum], meant: type[StrEnum]
) -> None:
    assert [one.value for one in spelt] == [one.value for one in meant]
