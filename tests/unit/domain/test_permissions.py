"""Roles are sets of permissions, and a refusal says who could."""

import pytest

from domain.permissions import GRANTS, Permission, Role, refuse

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("permission", Permission)
@pytest.mark.parametrize("role", Role)
def test_a_role_may_do_what_its_row_grants_and_nothing_else(
    role: Role, permission: Permission
) -> None:
    refused = refuse("ann", role, permission)
    assert (refused is None) == (permission in GRANTS[role])
    if refused is not None:
        assert refused.code == "PERMISSION_DENIED"
        assert role in refused.detail
        assert permission in refused.detail
        assert "admin" in refused.next_step
        assert not {r for r in (Role.MONITOR, Role.ENGINE) if r in refused.next_step}


def test_every_role_has_a_row_and_a_viewer_changes_nothing() -> None:
    assert set(GRANTS) == set(Role)
    assert GRANTS[Role.VIEWER] == frozenset()


def test_a_monitor_reports_failures_and_configures_nothing() -> None:
    assert Permission.HOST_RECOVER in GRANTS[Role.MONITOR]
    assert not {p for p in GRANTS[Role.MONITOR] if p.endswith("configure")}


def test_an_operator_runs_things_and_a_program_does_not_arm() -> None:
    assert Permission.VM_OPERATE in GRANTS[Role.OPERATOR]
    assert Permission.HOST_CONFIGURE not in GRANTS[Role.OPERATOR]
    assert Permission.CLUSTER_ARM not in GRANTS[Role.AUTOMATION]
