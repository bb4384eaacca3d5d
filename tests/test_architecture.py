"""Rules of the house that hold for the whole tree: who imports whom, how large a piece may be, examples that run."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("engines", "training", "pipeline")

MOST_LINES = 500
MOST_CLASS_LINES = 300
MOST_FUNCTION_LINES = 60
MOST_MODULES = 14
"""Side by side in one folder, its `__init__` not counted."""

DATA_TABLES: dict[str, str] = {}
"""Files above `MOST_LINES`, by their path, with what they are a table of."""

LONG_PIECES: dict[str, str] = {}
"""Classes and functions above their limit, as `path:name`, with the reason why they are not cut."""

FOUND_BY_NAME = ("training.tasks.", "training.data.inspection.", "pipeline.contracts")
"""Modules that are looked for by what they are called, and the page of what strangers' classes may have, which is
looked for in them by name: nobody imports the names in these."""

FOR_USERS = {
    "pipeline.sources.synthetic.synthetic_frames": "frames with exact labels, for whoever measures with them",
    "pipeline.frame.Analysis.to_supervision": "boxes for supervision's annotators and zones",
    "pipeline.shown.Shown.full_class_map": "classes by pixel of the frame, in a notebook",
    "pipeline.shown.Shown.instances": "pixels of each box, in a notebook",
    "pipeline.messages.wire.Received.instances": "pixels of each box of a message, in a subscriber",
    "pipeline.scene.drive.SyntheticScene.instances": "exact pixels of each object, for whoever measures with them",
    "pipeline.shown.Shown._repr_html_": "asked for by a notebook",
}
"""Names that are there for people's own programs, with what they use them for."""

PLAIN_BASES = {"ABC", "Enum", "Exception", "NamedTuple", "Protocol", "Struct"}
"""Classes of libraries that call nothing of those derived from them."""

NOT_INSTALLED = frozenset({"tensorrt", "triton"})
"""What modules may need that the machine of the tests does not have; their examples are run where it is there."""


@cache
def trees(package: str) -> dict[str, ast.Module]:
    """The modules of a package, by the name that Python imports them by."""
    files = sorted((ROOT / package).rglob("*.py"))
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]
    return {name: ast.parse(file.read_text()) for name, file in zip(names, files, strict=True)}


def imported(tree: ast.Module, known: set[str]) -> set[str]:
    """Modules that a module imports anywhere in it: in functions and for type checkers, too."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            wholes = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (wholes & known) or {node.module}
            found |= {node.module} if wholes - known else set()
    return found & known


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def pieces(package: str) -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Classes and functions with `path:name` and their number of lines, decorators and docstrings among them."""
    for name, tree in trees(package).items():
        path = path_of(name)
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                assert node.end_lineno is not None
                yield f"{path}:{node.name}", node, node.end_lineno - first + 1


def path_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


def has_examples(tree: ast.Module) -> bool:
    """Whether a docstring shows something that can be run."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, documented)]
    return any(
        not example.options.get(doctest.SKIP) for t in texts for example in doctest.DocTestParser().get_examples(t)
    )


def all_trees() -> dict[str, ast.Module]:
    return {name: tree for package in PACKAGES for name, tree in trees(package).items()}


def commands() -> set[tuple[str, str]]:
    """What `pyproject.toml` makes commands of: module and name."""
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["roadlens.commands"]
    return {(module, name) for module, _, name in (entry.partition(":") for entry in entries.values())}


def used_elsewhere(modules: dict[str, ast.Module]) -> set[tuple[str, str]]:
    """What modules take from each other: module and name."""
    found = set()
    for tree in modules.values():
        named = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module is not None:
                found |= {(node.module, alias.name) for alias in node.names}
                named |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                named |= {alias.asname: alias.name for alias in node.names if alias.asname is not None}
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                found.add((named.get(owner, owner), node.attr))
    return {(module, name) for module, name in found if module in modules}


def unused(tree: ast.Module) -> Iterator[str]:
    """Names at the top of a module that it does not use outside of their own definition, nor registers."""
    read = Counter(node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load))
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            own = sum(isinstance(each, ast.Name) and each.id == node.name for each in ast.walk(node))
            # A decorated function may be registered by that: a command, what is done at exit.
            if read[node.name] == own and not (node.decorator_list and not isinstance(node, ast.ClassDef)):
                yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (each.id for each in targets if isinstance(each, ast.Name) and not read[each.id])


def idle_names(modules: dict[str, ast.Module], outside: set[tuple[str, str]]) -> list[str]:
    """Names at the top of modules that no module uses; `outside` are those used from elsewhere."""
    used = used_elsewhere(modules) | outside
    return [
        f"{module}.{name}"
        for module, tree in modules.items()
        if not module.startswith(FOUND_BY_NAME)
        for name in unused(tree)
        if (module, name) not in used and name not in ("__all__", "__getattr__", "__dir__")
    ]


def idle_members(modules: dict[str, ast.Module]) -> list[str]:
    """Methods whose name no module speaks of, and attributes that are set and never read. What is derived from a
    library's class is left out: the library calls it."""
    nodes = [node for tree in modules.values() for node in ast.walk(tree)]
    spoken = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}
    spoken |= {name for node in nodes if isinstance(node, ast.MatchClass) for name in node.kwd_attrs}
    # As for `getattr`, and for capabilities that are looked up.
    spoken |= {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    own = {node.name for node in nodes if isinstance(node, ast.ClassDef)} | PLAIN_BASES
    idle = []
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
            members = {
                each.attr
                for each in ast.walk(node)
                if isinstance(each, ast.Attribute)
                and isinstance(each.ctx, ast.Store)
                and ast.unparse(each.value) == "self"
            }
            if bases <= own:
                methods = (each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
                members |= {each.name for each in methods if not each.name.startswith("__")}
                idle += [f"{module}.{node.name}.{name}" for name in sorted(members - spoken)]
    return idle


def test_import_rules() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.seconds
def test_the_runtime_needs_no_torch() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import pipeline.session, pipeline.commands.console, "
        "pipeline.commands.subscribe, engines.openvino, engines.tools.verify, engines.tools.benchmark; print('fine')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circle_of_imports(package: str) -> None:
    modules = trees(package)
    graph = {name: imported(tree, set(modules)) - {name} for name, tree in modules.items()}
    assert circle(graph) == []


def test_a_circle_is_found_in_functions_and_among_types() -> None:
    code = {
        "a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import x",
        "a.b": "def f():\n    import a.c",
        "a.c": "from a import y",
    }
    graph = {name: imported(ast.parse(text), set(code)) for name, text in code.items()}
    assert graph == {"a": {"a.b"}, "a.b": {"a.c"}, "a.c": {"a"}}
    assert set(circle(graph)) == {"a", "a.b", "a.c"}
    assert circle(graph | {"a.c": set()}) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_file_is_too_long(package: str) -> None:
    lines = {
        path: (ROOT / path).read_text().count("\n") for path in map(path_of, trees(package)) if path not in DATA_TABLES
    }
    assert {path: number for path, number in lines.items() if number > MOST_LINES} == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_no_class_and_no_function_is_too_long(package: str) -> None:
    too_long = {
        piece: lines
        for piece, node, lines in pieces(package)
        if lines > (MOST_CLASS_LINES if isinstance(node, ast.ClassDef) else MOST_FUNCTION_LINES)
    }
    excused = {piece for piece in LONG_PIECES if piece.startswith(f"{package}/")}
    assert {piece: lines for piece, lines in too_long.items() if piece not in LONG_PIECES} == {}
    assert excused - too_long.keys() == set(), "no longer too long: take them out of LONG_PIECES"


@pytest.mark.parametrize("package", PACKAGES)
def test_no_folder_is_too_full(package: str) -> None:
    folders: dict[str, list[str]] = {}
    for path in map(Path, map(path_of, trees(package))):
        if path.name != "__init__.py":
            folders.setdefault(str(path.parent), []).append(path.name)
    assert {folder: files for folder, files in folders.items() if len(files) > MOST_MODULES} == {}


@pytest.mark.seconds
def test_nothing_is_there_for_tests_only() -> None:
    assert set(idle_names(all_trees(), commands())) - FOR_USERS.keys() == set()
    assert set(idle_members(all_trees())) - FOR_USERS.keys() == set()


def test_what_only_tests_use_is_found() -> None:
    code = {
        "a": "def used(): pass\ndef idle(): return idle\nLEFT = 1\ndef command(): pass",
        "b": """
from a import used
class Told(Struct):
    def asked(self): self.kept, self.matched, self.lost = used(), used(), 1
    def unasked(self): return self.unasked_too
class _Seen(Told, Library):
    def called_by_the_library(self): pass
print(Told().asked().kept, _Seen())
match Told():
    case Told(matched=1): pass
""",
    }
    modules = {name: ast.parse(text) for name, text in code.items()}
    assert idle_names(modules, {("a", "command")}) == ["a.idle", "a.LEFT"]
    assert idle_members(modules) == ["b.Told.lost", "b.Told.unasked"]


EXAMPLES = [name for package in PACKAGES for name, tree in trees(package).items() if has_examples(tree)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_the_docstrings(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in NOT_INSTALLED:
            raise
        pytest.skip(f"{error.name} is not installed")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
