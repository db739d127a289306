"""House rules that no linter sees: sizes, docstrings, markers, and what the lock may not say."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *("domain", "engine", "store", "workflows", "activities", "drivers", "worker", "api"),
    *("cli", "lab", "simulator", "hostd", "benchmarks", "tests"),
)
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
MARKERS = {"unit", "store", "workflow", "replay", "lab"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> list[Path]:
    found = sorted(p for folder in FOLDERS for p in (ROOT / folder).rglob("*.py"))
    assert len(found) > 20, "the rules would hold for an empty house, too"
    return found


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function):
            yield node


def lines_of(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or 0) - first.lineno + 1
    return lines


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    lengths = {name(p): len(p.read_text().splitlines()) for p in sources()}
    assert {p: n for p, n in lengths.items() if n > FILE_LINES_MAX} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    lengths = {
        f"{name(p)}:{f.lineno} {f.name}": lines_of(f) for p in sources() for f in functions(p)
    }
    assert {f: n for f, n in lengths.items() if n > FUNCTION_LINES_MAX} == {}


def test_every_module_says_what_it_is_for() -> None:
    silent = [name(p) for p in sources() if not ast.get_docstring(ast.parse(p.read_text()))]
    empty_packages = [p for p in silent if p.endswith("__init__.py") and not (ROOT / p).read_text()]
    assert sorted(set(silent) - set(empty_packages)) == []


def test_every_test_file_says_which_suite_it_belongs_to() -> None:
    def marked(path: Path) -> bool:
        return bool(MARKERS & set(re.findall(r"pytest\.mark\.(\w+)", path.read_text())))

    files = sorted((ROOT / "tests").rglob("test_*.py"))
    assert [name(p) for p in files if not marked(p)] == []


def test_every_test_is_named_by_a_sentence() -> None:
    names = {
        f.name: name(p)
        for p in sorted((ROOT / "tests").rglob("test_*.py"))
        for f in functions(p)
        if f.name.startswith("test_")
    }
    assert {n: p for n, p in names.items() if n.count("_") < 4} == {}


def test_the_lock_pins_each_package_by_hash_and_names_no_index_and_no_machine() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert (
        re.findall(r"https?://|--index-url|--find-links|--extra-index|file:|/home/|/root/", text)
        == []
    )
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) > 20
    assert [e.splitlines()[0] for e in entries if "--hash=sha256:" not in e] == []
    assert [e.splitlines()[0] for e in entries if "==" not in e.splitlines()[0]] == []


def test_no_source_knows_the_machine_it_was_written_on() -> None:
    machine = re.compile(r"[\"' ](/home/\w+|/root|/work)/")
    assert [name(p) for p in sources() if machine.search(p.read_text())] == []
