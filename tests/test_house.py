"""The package's order: import arrows point down, no circle, unique file names, short files."""

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import cfnseg

PACKAGE = Path(cfnseg.__file__).parent
ROOMS = (  # the foundation first; a room imports rooms of its own row and of the rows before it
    ("errors",),
    ("rules",),
    ("config", "config_values", "storage", "streams", "progress", "shipped", "timing"),
    ("data", "ops"),
    ("drawing", "models", "metrics"),
    ("inference", "evaluation", "training"),
    ("report",),
    ("workflows",),
    ("cli", "commands"),
    ("cfnseg", "__main__"),  # the public API
)
WINGS = {
    "convert",
    "doctor",
    "lab",
    "demo",
    "export",
    "plan",
}  # they import the rooms below `workflows` and it; only `commands` imports them
LINES = 420
HEIGHT = {room: height for height, row in enumerate(ROOMS) for room in row} | dict.fromkeys(
    WINGS, len(ROOMS) - 3
)
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    """cfnseg/ops/dense.py as cfnseg.ops.dense; a package by its folder."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    """The folder or file under cfnseg/, or "cfnseg" for the public API."""
    return module.split(".")[1] if "." in module else module


def is_typing(node: ast.AST) -> bool:
    """``if TYPE_CHECKING:``, whose imports do not run."""
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def walk(node: ast.AST, lazy: bool) -> Iterator[ast.AST]:
    """Every node that runs; without ``lazy`` none inside a function."""
    for child in ast.iter_child_nodes(node):
        if not is_typing(child) and (
            lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        ):
            yield child
            yield from walk(child, lazy)


def imports(module: str, lazy: bool = True) -> set[str]:
    """The modules of cfnseg that a module imports, its version number aside."""
    found = set()
    for node in walk(ast.parse(MODULES[module].read_text(encoding="utf-8")), lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            for name in {alias.name for alias in node.names} - {"__version__"}:
                whole = f"{node.module}.{name}"
                found.add(whole if whole in MODULES else node.module)
    return {name for name in found if name in MODULES} - {module}


def test_every_file_is_in_a_room():
    unknown = {room_of(module) for module in MODULES} - set(HEIGHT)
    assert not unknown, f"no row of ROOMS has {sorted(unknown)}"


def test_arrows_point_down():
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in imports(module)
        if HEIGHT.get(room_of(other), -1) > HEIGHT.get(room_of(module), -1)
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_imports_a_wing():
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in imports(module)
        if room_of(other) in WINGS - {room_of(module)} and room_of(module) != "commands"
    ]
    assert not wrong, "\n".join(wrong)


def test_the_operations_import_nothing_of_ours():
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        if room_of(module) == "ops"
        for other in imports(module)
        if room_of(other) not in ("ops", "errors")
    ]
    assert not wrong, "\n".join(wrong)


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_modules_form_no_circle():
    assert not circle({module: imports(module, lazy=False) for module in MODULES})


def test_rooms_form_no_circle():
    graph: dict[str, set[str]] = {}
    for module in MODULES:
        room = room_of(module)
        graph.setdefault(room, set()).update(room_of(other) for other in imports(module))
        graph[room].discard(room)
    assert not circle(graph)


def test_no_two_files_share_a_name():
    names = Counter(path.stem for path in FILES if path.stem != "__init__")
    assert not [name for name, count in names.items() if count > 1]


def test_no_file_is_too_long():
    lines = {
        str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines())
        for path in FILES
    }
    assert not {name: count for name, count in lines.items() if count > LINES}


def test_what_the_tests_above_see(monkeypatch, tmp_path):
    (tmp_path / "a.py").write_text(
        "from typing import TYPE_CHECKING\nimport cfnseg.ops\nfrom cfnseg.ops import dense\n"
        "from cfnseg import __version__\nif TYPE_CHECKING:\n    import cfnseg.data\n"
        "def f():\n    from cfnseg.errors import UserError\n"
    )
    monkeypatch.setitem(MODULES, "cfnseg.a", tmp_path / "a.py")
    assert imports("cfnseg.a") == {"cfnseg.ops", "cfnseg.ops.dense", "cfnseg.errors"}
    assert imports("cfnseg.a", lazy=False) == {"cfnseg.ops", "cfnseg.ops.dense"}
    assert [room_of(name) for name in ("cfnseg", "cfnseg.cli", "cfnseg.ops.dense")] == [
        "cfnseg",
        "cli",
        "ops",
    ]
    assert circle({"a": {"b"}, "b": {"a"}}) and not circle({"a": {"b"}, "b": set()})
