"""XML of others, parsed without trust: a host under attack may send whatever it likes.

Invariants  No document type, hence no entities of its own and nothing fetched. Size, depth,
            elements, attributes and namespaces have limits, so that no answer costs more than 25
            megabytes: a small element takes many times its length, and a parser repeats the address
            of a namespace in every name of it.
"""

import re
from typing import Any
from xml.etree import ElementTree as ET
from xml.parsers import expat

from domain.errors import Invalid

BYTES_MAX = 2 * 1024 * 1024
"""Of one document. A definition of a busy guest has about 30 KiB."""

DEPTH_MAX = 100

ELEMENTS_MAX = 20_000
"""The same limit holds for the attributes of all elements together."""

NAMESPACE_MAX = 250
"""Characters of a namespace's address."""

LONG_NAMESPACE = re.compile(
    rf"""xmlns[^\s=<>]*\s*=\s*(?:"[^"]{{{NAMESPACE_MAX + 1}}}|'[^']{{{NAMESPACE_MAX + 1}}})"""
)


def parse(text: str) -> ET.Element:
    """The root element; Invalid (`XML_UNREADABLE`) for anything that is not plain XML."""
    size = len(text.encode())
    if size > BYTES_MAX:
        raise _unreadable(f"{size} bytes, more than {BYTES_MAX}")
    # Attributes and namespaces are unfolded before the parser tells of them: looked for beforehand.
    if (signs := text.count("=")) > ELEMENTS_MAX:
        raise _unreadable(f"up to {signs} attributes, more than {ELEMENTS_MAX}")
    if LONG_NAMESPACE.search(text):
        raise _unreadable(f"a namespace of more than {NAMESPACE_MAX} characters")
    target = _Builder()
    parser = expat.ParserCreate(namespace_separator="}")
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = _no_doctype
    parser.StartElementHandler = target.start
    parser.EndElementHandler = target.end
    parser.CharacterDataHandler = target.data
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise _unreadable(str(error)) from None
    return target.root


class _Builder:
    """Builds a tree with names as ElementTree has them."""

    def __init__(self) -> None:
        self._tree = ET.TreeBuilder()
        self._depth = 0
        self._elements = 0

    @property
    def root(self) -> ET.Element:
        return self._tree.close()

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._elements > ELEMENTS_MAX:
            raise _unreadable(f"more than {ELEMENTS_MAX} elements")
        if self._depth > DEPTH_MAX:
            raise _unreadable(f"more than {DEPTH_MAX} elements within one another")
        named = {_name(key): value for key, value in attributes.items()}
        self._tree.start(_name(tag), named)

    def end(self, tag: str) -> None:
        self._depth -= 1
        self._tree.end(_name(tag))

    def data(self, text: str) -> None:
        self._tree.data(text)


def _name(name: str) -> str:
    return "{" + name if "}" in name else name


def _no_doctype(*_declared: Any) -> None:
    raise _unreadable("it declares a document type")


def _unreadable(why: str) -> Invalid:
    return Invalid(
        "XML_UNREADABLE",
        f"a definition is not plain XML: {why}",
        next_step="look at it with `virsh dumpxml` on its host",
    )
