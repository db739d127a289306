"""How fence devices are shown, by whoever shows them."""

from cli.failures import Json
from cli.render import clock, lasting


def tested(device: Json) -> str | None:
    """What the last test of a device said, and when."""
    if device["last_tested_at"] is None:
        return None
    if device["silent_since"] is not None:
        return f"SILENT since {clock(device['silent_since'])}"
    told = {"same": ", this machine", "other": ", ANOTHER MACHINE"}
    said = told.get(device["test_identity"] or "", "")
    took = lasting(device["test_took_s"])
    return f"{device['test_reading']} in {took}{said} at {clock(device['last_tested_at'])}"
