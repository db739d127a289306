"""What reaches a terminal: text without control characters, colour only where it is wanted.

Names are plain, but details and problems quote hosts, power controllers and other programs; an
escape sequence among them would steer the reader's terminal.
"""

import os
import re
import sys
from typing import Any, TextIO

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]+")

COLOURS = {
    **dict.fromkeys(("up", "succeeded", "valid", "recovered", "armed"), "32"),
    **dict.fromkeys(("running", "powering_up", "powering_down", "reconciling"), "36"),
    **dict.fromkeys(("connecting", "waiting", "pending", "cancelling", "fencing", "unknown"), "33"),
    **dict.fromkeys(("failed", "non_responsive", "error", "void", "incomplete"), "31"),
    **dict.fromkeys(("needs_attention", "non_operational", "disarmed"), "35"),
}
"""SGR codes of state words; the word itself always carries the meaning."""


def clean(value: Any) -> str:
    """One line of text without control or direction-changing characters; None is a dash."""
    return "-" if value is None else CONTROL.sub(" ", str(value))


def wants_colour(stream: TextIO) -> bool:
    """Whether colour may be written there: NO_COLOR, CLICOLOR_FORCE and TERM are honoured."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("CLICOLOR_FORCE", "0") not in ("", "0"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def painted(shown: str, word: str) -> str:
    """`shown` in the colour of a state word, if the word has one."""
    code = COLOURS.get(word)
    return shown if code is None else f"\x1b[{code}m{shown}\x1b[0m"


def say(line: str) -> None:
    """A line for the person, on standard error; data goes to standard output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
