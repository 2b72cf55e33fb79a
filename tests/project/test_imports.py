"""The import graph, drawn file by file: no circle, few floors (`make lint` holds the layers)."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_FLOORS = 11


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def for_type_checkers(tree: ast.Module) -> set[ast.AST]:
    """What stands below ``if TYPE_CHECKING``."""
    blocks = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    )
    return {below for block in blocks for line in block.body for below in ast.walk(line)}


def import_graph() -> dict[str, set[str]]:
    """Module of `saga_sr` -> those it imports, wherever in the file it does."""
    files = {module_name(path): path for path in (ROOT / "saga_sr").rglob("*.py")}
    graph: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped = for_type_checkers(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node not in skipped and node.module in files:
                found = {f"{node.module}.{alias.name}" for alias in node.names}
                graph[name] |= {one if one in files else node.module for one in found}
            elif isinstance(node, ast.Import) and node not in skipped:
                graph[name] |= {alias.name for alias in node.names} & files.keys()
    return {name: imported - {name, "saga_sr"} for name, imported in graph.items()}


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """The floor of every module: one above the highest that it imports."""

    @cache
    def floor(name: str) -> int:
        return 1 + max((floor(below) for below in graph[name]), default=0)

    return {name: floor(name) for name in graph}


def test_the_import_graph_has_no_circle_and_few_floors() -> None:
    graph = import_graph()
    assert len(graph) > 60
    assert sum(map(len, graph.values())) > 200
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError
    high = {name: floor for name, floor in floors(graph).items() if floor > MOST_FLOORS}
    assert high == {}
