"""Where the fleet of an engine's folder listens, and where it is remembered."""

import os
from pathlib import Path

from domain.errors import Invalid

SOCKET = "fleet.sock"
FILE = "fleet.json"
SOCKET_PATH_MAX = 100
"""Bytes of the longest path that a Unix socket can have everywhere."""


def socket_of(var: Path) -> Path:
    """Where the fleet of a folder listens; Invalid when no socket can have that path."""
    path = var.absolute() / SOCKET
    if len(os.fsencode(path)) > SOCKET_PATH_MAX:
        raise Invalid(
            "FLEET_PATH_TOO_LONG",
            f"the path {path} is too long for a socket",
            next_step=f"choose a folder for HOLDFAST_VAR with less than {SOCKET_PATH_MAX - 12} "
            "characters",
        )
    return path


def has_fleet(var: Path) -> bool:
    """Whether the folder belongs to a fleet, be it running or not."""
    return (var / FILE).exists() or (var / SOCKET).exists()
