"""Conditions on the switch of automatic action, for the statements that act (I8)."""

import sqlalchemy as sa

from domain.disarming import DisarmMode
from store.schema import cluster


def acts_on_known() -> sa.ColumnElement[bool]:
    """Whether a cluster lets the recovery of an open incident act.

    Under `ignore` every open incident began while the cluster was armed: none is opened then, and
    none may be open when another mode becomes that one.
    """
    return sa.or_(cluster.c.armed.is_(True), cluster.c.disarm_mode == DisarmMode.IGNORE.value)


def starts_known() -> sa.ColumnElement[bool]:
    """Whether a cluster lets a recovery that is under way start VMs."""
    mode = sa.func.coalesce(cluster.c.disarm_mode, "")
    return sa.or_(cluster.c.armed.is_(True), mode != DisarmMode.FREEZE.value)
