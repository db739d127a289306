"""The metadata all tables share, and the few kinds of column they are made of."""

import sqlalchemy as sa

from store.types import UtcDateTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = sa.MetaData(naming_convention=NAMING)


def identity() -> sa.Column[object]:
    """The primary key of most tables: a UUIDv7, so ids sort by age."""
    return sa.Column("id", sa.Uuid, primary_key=True)


def reference(name: str, target: str, *, nullable: bool = False) -> sa.Column[object]:
    """A foreign key to `target.id`."""
    return sa.Column(name, sa.Uuid, sa.ForeignKey(f"{target}.id"), nullable=nullable)


def text(name: str, *, nullable: bool = False, length: int = 255) -> sa.Column[str]:
    """A string of bounded length."""
    return sa.Column(name, sa.String(length), nullable=nullable)


def integer(name: str, default: int = 0) -> sa.Column[int]:
    """A whole number with a default of its own."""
    return sa.Column(name, sa.Integer, nullable=False, server_default=sa.text(str(default)))


def flag(name: str, *, default: bool) -> sa.Column[bool]:
    """A yes or no with a default of its own."""
    value = sa.true() if default else sa.false()
    return sa.Column(name, sa.Boolean, nullable=False, server_default=value)


def time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    """A UTC time."""
    return sa.Column(name, UtcDateTime, nullable=nullable)


def document(name: str, *, nullable: bool = False) -> sa.Column[object]:
    """A JSON value; None is stored as NULL."""
    return sa.Column(name, sa.JSON(none_as_null=True), nullable=nullable)
