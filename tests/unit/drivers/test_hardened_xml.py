"""XML of a host that cannot be trusted: limits, no document type, and names as they are."""

import pytest

from domain.errors import Invalid
from drivers.hardened_xml import BYTES_MAX, DEPTH_MAX, ELEMENTS_MAX, NAMESPACE_MAX, parse

pytestmark = pytest.mark.unit

BILLION_LAUGHS = """<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<d>&b;</d>"""


def test_elements_attributes_text_and_namespaces_come_out_as_elementtree_has_them() -> None:
    root = parse("<d xmlns:h='urn:h' id='1'>a<h:run h:n='2'>b</h:run>c &amp; d</d>")
    run = root.find("{urn:h}run")
    assert run is not None
    assert (root.tag, root.get("id"), root.text, run.tail) == ("d", "1", "a", "c & d")
    assert (run.get("{urn:h}n"), run.text) == ("2", "b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<d>",
        "<d></e>",
        "<d/><d/>",
        "<d>&a;</d>",
        "<d>\x00</d>",
        BILLION_LAUGHS,
        "<!DOCTYPE d SYSTEM 'file:///etc/hostname'><d/>",
        "<d>" * (DEPTH_MAX + 1) + "</d>" * (DEPTH_MAX + 1),
        "<d>" + " " * BYTES_MAX + "</d>",
        "<d>" + "<e/>" * ELEMENTS_MAX + "</d>",
        "<d " + " ".join(f"a{n}=''" for n in range(ELEMENTS_MAX + 1)) + "/>",
        f"<d xmlns='{'n' * (NAMESPACE_MAX + 1)}'/>",
        f'<d><e xmlns:p\n = "{"n" * (NAMESPACE_MAX + 1)}"/></d>',
    ],
    ids=[
        *("nothing", "unclosed", "crossed", "two roots", "unknown entity", "control character"),
        *("entities", "something to fetch", "too deep", "too large"),
        *("too many elements", "too many attributes", "long namespace", "long prefixed namespace"),
    ],
)
def test_anything_but_plain_xml_within_its_limits_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse(text)
    assert refused.value.code == "XML_UNREADABLE"
    assert refused.value.next_step


def test_what_is_just_within_the_limits_is_read() -> None:
    assert parse("<d>" * DEPTH_MAX + "</d>" * DEPTH_MAX).tag == "d"
    assert parse("<d>" + " " * (BYTES_MAX - 7) + "</d>").tag == "d"
    assert len(parse("<d>" + "<e/>" * (ELEMENTS_MAX - 1) + "</d>")) == ELEMENTS_MAX - 1
    assert parse(f"<d xmlns='{'n' * NAMESPACE_MAX}'/>").tag == "{" + "n" * NAMESPACE_MAX + "}d"
    attributes = " ".join(f"a{n}=''" for n in range(ELEMENTS_MAX))
    assert len(parse(f"<d {attributes}/>").attrib) == ELEMENTS_MAX
