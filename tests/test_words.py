"""Tests that names and docstrings follow the rules of plain English."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from embedway.config.settings import Settings

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src/embedway"
DIALECT = re.compile(r"(Of|As|Likewise|See)\b")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the package: its path in the repository, and its tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every docstring, including those below attributes."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for each in body if isinstance(body, list) else ():
            match each:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield each.lineno, text.strip()
                case _:
                    pass


def classes() -> list[tuple[str, str]]:
    """List the name and the module of every public class."""
    return [
        (node.name, module)
        for module, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]


def test_class_names_are_unique() -> None:
    """No public class name is defined twice."""
    counts = Counter(name for name, _ in classes())
    assert [each for each in classes() if counts[each[0]] > 1] == []


def test_docstrings_are_sentences() -> None:
    """No docstring begins in the middle of a thought, or only says that arguments are needed."""
    wrong = [
        f"{module}:{line}: {text.splitlines()[0]}"
        for module, tree in modules()
        for line, text in docstrings(tree)
        if DIALECT.match(text) or "Args name what it needs" in text
    ]
    assert wrong == []


def test_the_glossary_names_classes() -> None:
    """Every class or type in the third column of the glossary exists."""
    rows = (ROOT / "docs/glossary.md").read_text().splitlines()
    cells = [row.strip("|").split("|")[2] for row in rows if row.count("|") == 4]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert len(named) > 30
    types = {
        target.id
        for _, tree in modules()
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    assert named - {name for name, _ in classes()} - types == set()


def test_settings_are_described_in_the_same_words() -> None:
    """The meaning of a setting in docs/configuration.md is that in the code, but for links."""
    page = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|(?:[^|]*\|){2} ([^|]+) \|$", page, re.MULTILINE)
    link = re.compile(r"[;.] [Ss]ee \[[^\]]*\]\([^)]*\)\.$")
    documented = {name: link.sub(".", text) for name, text in rows}
    assert documented == dict(Settings.meanings())
