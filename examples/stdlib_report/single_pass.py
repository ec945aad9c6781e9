"""The same report as a plain loop, to check the flow's totals.

python examples/stdlib_report/single_pass.py
"""

import ast
import json
import sysconfig
import warnings
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any


def single_pass(root: Path, exclude: Collection[str] = ()) -> dict[str, Any]:
    """Return totals of all modules below ``root``, the largest and the most imported ones."""
    left_out = {"site-packages", "__pycache__", *exclude}
    totals: Counter[str] = Counter(modules=0, skipped=0, lines=0, functions=0, classes=0)
    sizes: dict[str, int] = {}
    imported: Counter[str] = Counter()
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if left_out.intersection(relative.parts[:-1]):
            continue
        source = path.read_bytes()
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(source)
        except (SyntaxError, ValueError):
            totals["skipped"] += 1
            continue
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                totals["functions"] += 1
            elif isinstance(node, ast.ClassDef):
                totals["classes"] += 1
            elif isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                names.add(node.module.split(".")[0])
        imported.update(names)
        sizes[relative.as_posix()] = len(source.splitlines())
        totals["modules"] += 1
        totals["lines"] += len(source.splitlines())
    return {
        "totals": dict(totals),
        "largest": sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:10],
        "most_imported": sorted(imported.items(), key=lambda item: (-item[1], item[0]))[:10],
    }


if __name__ == "__main__":
    print(json.dumps(single_pass(Path(sysconfig.get_paths()["stdlib"])), indent=2))
