"""check_imports: who may import whom, as docs/architecture.md says.

    python tests/check_imports.py

Within the library by import-linter, with the contracts in .importlinter, where the word SCRIPTS stands for all scripts. Scripts
are no package, which import-linter takes alone: of them it is checked here that none imports the simulator, nor another
script but for the declarations of the steps.
"""

import ast
import sys
import tempfile
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
#: The module that gathers what the scripts declare (by importlib), and the only scripts that may import it.
DECLARATIONS, READ_DECLARATIONS = "declarations", ("document_parameters", "stage")


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def broken_by_scripts(scripts: list[Path]) -> list[str]:
    """What scripts import that they may not, a line for each."""
    names = {path.stem for path in scripts}
    problems = []
    for path in scripts:
        found = imported(path)
        others = found & names - ({DECLARATIONS} if path.stem in READ_DECLARATIONS else set())
        problems += [f"{path.name} imports the script {name}: move what both need to rampflow" for name in sorted(others)]
        if any(f"{name}.".startswith("simulator.") for name in found):
            problems.append(f"{path.name} imports the simulator, which stands apart from the pipeline")
    return problems


def main() -> int:
    """Run from the command line; the exit status is 1 if something imports what it may not."""
    scripts = sorted(SCRIPTS.glob("*.py"))
    problems = broken_by_scripts(scripts)
    for problem in problems:
        print(problem, file=sys.stderr)
    contracts = (ROOT / ".importlinter").read_text().replace("    SCRIPTS\n", "".join(f"    {p.stem}\n" for p in scripts))
    sys.path.insert(0, str(SCRIPTS))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "importlinter.ini"
        path.write_text(contracts)
        return lint_imports(config_filename=str(path), no_cache=True) or bool(problems)


if __name__ == "__main__":
    sys.exit(main())
