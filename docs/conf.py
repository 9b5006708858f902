"""Sphinx: the documentation as a site.

    make docs

The source folder is the repository itself, so that README.md, config/README.md and CONTRIBUTING.md are pages of the site and
links between them work here and on GitHub. Pages of the reference are written to docs/reference/generated first: from the
scripts, the library and the declarations in them.
"""

import ast
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
GENERATED = ROOT / "docs" / "reference" / "generated"
sys.path.insert(0, str(SCRIPTS))

from rampflow import __version__  # noqa: E402

project = "rampflow"
author = "the rampflow developers"
release = __version__
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "changelog.d/README.md",
    "config/README.md",
    "tests/README.md",
]
exclude_patterns = [".*", "build", "demo", "docs/site", "docs/static", "scripts", "workflow"]

extensions = ["myst_nb", "numpydoc", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # the notebooks have their outputs, which `make notebooks` writes
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # numpydoc's sections have the types, with shapes and units

html_theme = "pydata_sphinx_theme"
html_title = "rampflow"
html_extra_path = ["site"]
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
}
html_show_sourcelink = False


def write_page(name: str, title: str, *paragraphs: str) -> None:
    """Write one page of the reference, and only if it changed, so that the next build is short."""
    text = "\n\n".join([f"# {title}", *paragraphs]) + "\n"
    path = GENERATED / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def automodule(module: str) -> str:
    """Directive that shows the public functions and classes of a module."""
    return f"```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```"


def summary_of(path: Path) -> str:
    """First line of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text())) or path.stem).splitlines()[0]


def write_index(name: str, title: str, text: str, pages: dict[str, str]) -> None:
    """Write a page that lists others, `pages`, with the summary of each."""
    table = "\n".join(
        ["| name | |", "|---|---|", *(f"| [{Path(page).name}]({page}.md) | {line} |" for page, line in pages.items())]
    )
    write_page(name, title, text, table, "\n".join(["```{toctree}", ":hidden:", "", *pages, "```"]))


def write_scripts(name: str, title: str, text: str, paths: list[Path]) -> set[str]:
    """Write a page for each script and their list; return the names of all pages."""
    pages = {}
    for path in paths:
        module = ".".join(path.relative_to(SCRIPTS).with_suffix("").parts)
        page = f"scripts/{path.stem}"
        write_page(page, path.stem, automodule(module))
        summary = summary_of(path).removeprefix(f"{path.stem}: ")
        pages[page] = summary[:1].upper() + summary[1:]
    write_index(name, title, text, pages)
    return {name, *pages}


def write_library() -> set[str]:
    """Write a page for each package of the library and their list; return the names of all pages."""
    library = SCRIPTS / "rampflow"
    single = [path for path in sorted(library.glob("*.py")) if path.stem != "__init__"]
    pages = {}
    for package in [None, *sorted(path.parent for path in library.glob("*/__init__.py"))]:
        modules = single if package is None else [p for p in sorted(package.glob("*.py")) if p.stem != "__init__"]
        name = "rampflow" if package is None else f"rampflow.{package.name}"
        sections = [f"## {path.stem}\n\n{automodule(f'{name}.{path.stem}')}" for path in modules]
        pages[f"library/{name}"] = summary_of((package or library) / "__init__.py")
        write_page(f"library/{name}", name, pages[f"library/{name}"], *sections)
    write_index("library", "Library", "The packages of `scripts/rampflow/`, which the scripts share.", pages)
    return {"library", *pages}


def write_columns() -> str:
    """Write the table of the columns of a source catalog; return the page's name."""
    from rampflow.catalog.columns import column_names, define

    rows = []
    for column in column_names(fit_psf=True):
        definition = define(column)
        rows.append(f"| `{column}` | {definition.dtype} | {definition.unit or ''} | {definition.description} |")
    table = "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])
    write_page("columns", "Columns of a source catalog", "In the order of the file; units and meanings are RAD's.", table)
    return "columns"


def write_command() -> str:
    """Write the page of the command `rampflow`, from its parsers; return the page's name."""
    from rampflow.command.parser import COMMANDS, command_parser, find

    def block(parser):
        return f"```text\n{parser.format_help()}```"

    os.environ["COLUMNS"] = "100"  # width of the help
    os.environ["NO_COLOR"] = "1"
    sections = [f"## rampflow {name}\n\n{block(find(name).parser())}" for name, c in COMMANDS.items() if c.options]
    links = [
        f"| [`rampflow {name}`](scripts/{c.place}.md) | {c.summary} |" for name, c in COMMANDS.items() if c.options is None
    ]
    others = "\n".join(["## Commands that are scripts", "", "| command | |", "|---|---|", *links])
    write_page("command", "The command rampflow", block(command_parser()), *sections, others)
    return "command"


def write_reference() -> None:
    """Write the pages of the reference, and remove those of modules that are gone."""
    from rampflow.chain import STEPS

    steps = [SCRIPTS / f"{name}.py" for name in [*STEPS, "finalize"]]
    simulator = [path for path in sorted((SCRIPTS / "simulator").glob("*.py")) if path.stem != "__init__"]
    programs = [path for path in sorted(SCRIPTS.glob("*.py")) if path not in steps]
    written = {write_columns(), write_command(), *write_library()}
    written |= write_scripts(
        "steps", "Steps", "The scripts of the steps, in the order in which an exposure goes through them.", steps
    )
    written |= write_scripts("programs", "Other programs", "The other scripts in `scripts/`.", programs)
    written |= write_scripts("simulator", "Simulator", "References and raw exposures with their truth.", simulator)
    for path in GENERATED.rglob("*.md"):
        if str(path.relative_to(GENERATED).with_suffix("")) not in written:
            path.unlink()


write_reference()


def skip_imported(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what a module imports: autodoc warns of compiled classes before it finds that they are not the module's."""
    module = getattr(obj, "__module__", None) or ""
    ours = module.partition(".")[0] in ("rampflow", "simulator") or (SCRIPTS / f"{module}.py").exists()
    return None if ours or not module else True


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_imported)
