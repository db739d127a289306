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


def rehearsed(device: Json) -> str | None:
    """What switching its host off and on with a device has shown, and when."""
    told = {
        "cut": "CUT, not known to be back, since",
        "proven": "cut this host at",
        "other": "CUT ANOTHER MACHINE at",
        "failed": "FAILED at",
    }
    shown = told.get(device["rehearsal"] or "")
    return None if shown is None else f"{shown} {clock(device['rehearsed_at'])}"
