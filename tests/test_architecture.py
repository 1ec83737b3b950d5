"""The rules of the house: which room may import which, and what may not be imported where.

docs/architecture.md and CONTRIBUTING.md draw the same picture.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cxr_embed"

# A module imports from its own room and from those before it in this list, never from later ones.
# What everybody shares lies at the top of the package and comes first.
ROOMS = (
    "", "imaging", "storage", "models", "efficientnet", "pipeline", "runs", "embeddings",
    "datasets", "heads", "report", "search", "cli",
)  # fmt: skip

# The package's own door, which opens two rooms.
DOOR = "__init__"


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room_of(module: str) -> str:
    return module.partition(".")[0] if "." in module else ""


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(module: str, *, at_start: bool = False) -> Iterator[str]:
    """Yields what a module imports; with `at_start`, only what importing it imports."""

    def walk(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if at_start and (is_for_types(child) or isinstance(child, ast.FunctionDef)):
                continue
            yield child
            yield from walk(child)

    for node in walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def inside(imported: str) -> str | None:
    """Returns the module of this package that an import leads to, if any."""
    parts = imported.split(".")
    if parts[0] != "cxr_embed":
        return None
    for length in range(len(parts), 1, -1):
        name = ".".join(parts[1:length])
        for found in (name, f"{name}.__init__"):
            if found in MODULES:
                return found
    return DOOR


def test_every_module_has_a_room() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


def test_imports_point_down_the_list_of_rooms() -> None:
    upward = [
        f"{module} imports {target}"
        for module in MODULES
        if module != DOOR
        for imported in imports(module)
        if (target := inside(imported)) and target != DOOR
        and ROOMS.index(room_of(target)) > ROOMS.index(room_of(module))
    ]  # fmt: skip
    assert upward == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        module: {
            target
            for imported in imports(module, at_start=True)
            if (target := inside(imported)) and not target.endswith("__init__")
        }
        for module in MODULES
    }
    open_, done = [], set()  # type: ignore[var-annotated]

    def visit(module: str) -> None:
        assert module not in open_, " -> ".join([*open_[open_.index(module) :], module])
        if module in done:
            return
        open_.append(module)
        for target in sorted(graph[module]):
            visit(target)
        done.add(open_.pop())

    for module in graph:
        visit(module)


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("apache_beam", {"pipeline"}),
        ("tensorflow", {"models", "efficientnet"}),
        ("pydicom", {"imaging", "report"}),
        ("keras", {"heads"}),
        ("google.cloud.storage", {"storage"}),
        ("onnx", {"models"}),
        ("onnxruntime", {"models"}),
    ],
)
def test_a_large_library_is_imported_in_its_own_room_only(package: str, rooms: set[str]) -> None:
    found = {
        room_of(module)
        for module in MODULES
        for imported in imports(module)
        if f"{imported}.".startswith(f"{package}.")
    }
    assert found <= rooms


def test_init_files_hold_imports_and_a_docstring_only() -> None:
    allowed = (ast.Import, ast.ImportFrom, ast.Expr, ast.Assign, ast.If, ast.FunctionDef)
    for module, path in MODULES.items():
        if not module.endswith("__init__"):
            continue
        nodes = ast.parse(path.read_text()).body
        assert len(path.read_text().splitlines()) < 80, module
        for node in nodes:
            assert isinstance(node, allowed), (module, ast.unparse(node))
            if isinstance(node, ast.FunctionDef):  # lazy imports (PEP 562)
                assert node.name in ("__getattr__", "__dir__"), module


def test_importing_the_package_imports_no_large_library() -> None:
    program = (
        "import sys, cxr_embed; print([m for m in ('apache_beam', 'tensorflow', 'keras', 'pyarrow',"
        " 'sklearn', 'pandas', 'google.cloud.storage', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
