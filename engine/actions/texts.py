"""The texts within what a caller says, secrets included, and which of them are none.

JSON can spell half a surrogate pair. It is no character: no UTF-8 and no database can hold it, and
an agent that is handed one as a password would never be started.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr

HALF = re.compile("[\ud800-\udfff]")


def holds_half_a_character(value: Any) -> bool:
    """Whether any text in a value, however deep, has a half of a surrogate pair."""
    return any(HALF.search(text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        yield from _texts(dict(value))
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _texts(inner)
