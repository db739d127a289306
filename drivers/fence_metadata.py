"""What a fence agent says about itself, and which of its options a device may set.

A device comes from whoever may register one, and some options make an agent run a program, write a
file or cycle the power, so those are refused by name. The agents put values into command lines of
their own without quoting most of them, so values are checked as well.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from xml.etree import ElementTree as ET

from pydantic import Field

from domain.base import Frozen
from domain.errors import Invalid, NoAnswer

FORBIDDEN = re.compile(
    r".*_path|.*_script|action|option|debug.*|verbose.*|quiet|version|help"
    r"|ssh_options|(use_)?sudo|plug_separator|separator|disable_timeout"
)
"""Run programs, write files, change what a status means, or belong to the engine."""

SECRET = re.compile(r".*passw.*|.*secret.*|.*token.*|community|hexadecimal_kg|.*api_?key.*")
FREE_TEXT = frozenset({"plug", "port", "username", "login"})
SAFE_VALUE = re.compile(r"[A-Za-z0-9_.,:/@%+=~\[\]-]*")
CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


BOOLEAN = re.compile(r"1|0|yes|no|on|off|true|false", re.IGNORECASE)
NUMBER = re.compile(r"-?[0-9]+")


class AgentParameters(Frozen):
    """An agent's options and actions, by its own metadata.

    types    of each option that is no plain text: `boolean`, `integer`, `second` or `select`
    choices  the values of those that are a choice
    older    the name by which an option goes, too, that replaces an older one
    """

    agent: str
    names: frozenset[str]
    required: frozenset[str]
    actions: frozenset[str]
    types: dict[str, str] = Field(default_factory=dict)
    choices: dict[str, frozenset[str]] = Field(default_factory=dict)
    older: dict[str, str] = Field(default_factory=dict)


def parse_metadata(agent: str, text: str) -> AgentParameters:
    """Read the XML that `-o metadata` prints; NoAnswer when it is none."""
    try:
        root = ET.fromstring(text)
    except ET.ParseError as error:
        detail = f"{agent} printed no readable metadata: {error}"
        raise NoAnswer("FENCE_METADATA_UNREADABLE", detail, agent=agent) from None
    parameters = {node.get("name", ""): node for node in root.iterfind("./parameters/parameter")}
    return AgentParameters(
        agent=agent,
        names=frozenset(parameters),
        required=frozenset(n for n, node in parameters.items() if _has_to_be_given(node)),
        actions=frozenset(node.get("name", "") for node in root.iterfind("./actions/action")),
        types={n: found for n, node in parameters.items() if (found := _type(node)) != "string"},
        choices={n: some for n, node in parameters.items() if (some := _choices(node))},
        older={n: node.get("obsoletes", "") for n, node in parameters.items()},
    )


def _has_to_be_given(node: ET.Element) -> bool:
    content = node.find("content")
    return node.get("required") == "1" and (content is None or not content.get("default"))


def _type(node: ET.Element) -> str:
    content = node.find("content")
    return "string" if content is None else content.get("type", "string")


def _choices(node: ET.Element) -> frozenset[str]:
    return frozenset(option.get("value", "") for option in node.iterfind("content/option"))


def check_options(
    parameters: AgentParameters, options: Mapping[str, str], secrets: Mapping[str, str]
) -> None:
    """Invalid for an option that the agent does not know, a device may not set, or is malformed.

    No message repeats a value.
    """
    for name, value in (*options.items(), *secrets.items()):
        _check_name(parameters, name)
        if CONTROL.search(value):
            raise _malformed(
                parameters.agent, name, "has a line break, control character or half a character"
            )
    for name, value in options.items():
        if SECRET.fullmatch(_plain(name)):
            raise Invalid(
                "FENCE_SECRET_IN_OPTIONS",
                f"option {name!r} of {parameters.agent} is a secret",
                next_step="give it among the secrets of the device, which are kept encrypted",
                option=name,
            )
        if name not in FREE_TEXT and not SAFE_VALUE.fullmatch(value):
            raise _malformed(parameters.agent, name, "has a space, quote or shell character")
    if _method(options) != "onoff":
        raise Invalid(
            "FENCE_OPTION_FORBIDDEN",
            "method must be onoff: a power cycle cannot be read back as off",
            next_step="leave the option away",
            option="method",
        )


def check_complete(parameters: AgentParameters, options: Mapping[str, str]) -> None:
    """Invalid for an option that is missing, or whose value is none of its type.

    By the agent's own word; asked when a device is added or changed, not when a host is dying:
    what an older release has taken goes on. Secrets are not looked at.
    """
    given = {_plain(name): value for name, value in options.items()}
    for name in sorted(parameters.required):
        names = _names_of(parameters, name)
        if FORBIDDEN.fullmatch(name) or SECRET.fullmatch(name) or names & given.keys():
            continue
        newer = next((new for new, old in parameters.older.items() if old == name), name)
        raise Invalid(
            "FENCE_OPTION_MISSING",
            f"{parameters.agent} needs the option {newer!r}",
            next_step=f"give it; {parameters.agent} -o metadata tells what it means",
            option=newer,
        )
    for name, value in given.items():
        if not _fits(parameters, name, value):
            wanted = parameters.types.get(name, "string")
            known = ", ".join(sorted(parameters.choices.get(name, ())))
            why = f"has to be one of {known}" if known else f"has to be a {wanted}"
            raise _malformed(parameters.agent, name, why)


def _names_of(parameters: AgentParameters, name: str) -> set[str]:
    both = {name, parameters.older.get(name, "")}
    return {_plain(n) for n in both | {n for n, old in parameters.older.items() if old == name}}


def _fits(parameters: AgentParameters, name: str, value: str) -> bool:
    found = next((n for n in parameters.names if _plain(n) == name), name)
    match parameters.types.get(found):
        case "boolean":
            return BOOLEAN.fullmatch(value) is not None
        case "integer" | "second":
            return NUMBER.fullmatch(value) is not None
        case "select":
            # The library that all agents share compares them in upper case.
            known = {choice.upper() for choice in parameters.choices.get(found, {value})}
            return value.upper() in known
        case _:
            return True


def _check_name(parameters: AgentParameters, name: str) -> None:
    plain = _plain(name)
    if FORBIDDEN.fullmatch(plain):
        raise Invalid(
            "FENCE_OPTION_FORBIDDEN",
            f"option {name!r} of {parameters.agent} may not be set on a device",
            next_step="leave the option away",
            option=name,
        )
    if plain not in {_plain(known) for known in parameters.names}:
        allowed = sorted(known for known in parameters.names if not FORBIDDEN.fullmatch(known))
        near = get_close_matches(plain, allowed, n=3)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise Invalid(
            "FENCE_OPTION_UNKNOWN",
            f"{parameters.agent} has no option {name!r}",
            next_step=f"{hint}{parameters.agent} -o metadata lists its options",
            option=name,
        )


def _malformed(agent: str, name: str, why: str) -> Invalid:
    return Invalid("FENCE_OPTION_MALFORMED", f"option {name!r} of {agent} {why}", option=name)


def _method(options: Mapping[str, str]) -> str:
    return options.get("method", "onoff").lower()


def _plain(name: str) -> str:
    return name.replace("-", "_")
