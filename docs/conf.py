"""Sphinx: the documentation as a site.

    make docs

The source folder is the repository itself, so that README.md, config/README.md and CONTRIBUTING.md are pages of the site and
links between them work here and on GitHub. Pages of the reference are written to docs/reference/generated first: from the
scripts, the library and the declarations in them.
"""

import ast
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
include_patterns = ["docs/**", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "config/README.md", "tests/README.md"]
exclude_patterns = [".*", "build", "demo", "docs/site", "docs/static", "scripts", "workflow"]

extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 4
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


def write_reference() -> None:
    """Write a page per script, a page per package of the library, and the columns of a catalog."""
    from rampflow.catalog.columns import column_names, define

    written = {"columns"}
    for path in sorted(SCRIPTS.glob("*.py")):
        write_page(f"scripts/{path.stem}", path.stem, automodule(path.stem))
        written.add(f"scripts/{path.stem}")
    library = SCRIPTS / "rampflow"
    single = [path for path in sorted(library.glob("*.py")) if path.stem != "__init__"]
    for package in [None, *sorted(path.parent for path in library.glob("*/__init__.py"))]:
        modules = single if package is None else [p for p in sorted(package.glob("*.py")) if p.stem != "__init__"]
        name = "rampflow" if package is None else f"rampflow.{package.name}"
        sections = [f"## {path.stem}\n\n{automodule(f'{name}.{path.stem}')}" for path in modules]
        write_page(f"library/{name}", name, summary_of((package or library) / "__init__.py"), *sections)
        written.add(f"library/{name}")
    rows = []
    for column in column_names(fit_psf=True):
        definition = define(column)
        rows.append(f"| `{column}` | {definition.dtype} | {definition.unit or ''} | {definition.description} |")
    table = "\n".join(["| column | type | unit | meaning |", "|---|---|---|---|", *rows])
    write_page("columns", "Columns of a source catalog", "In the order of the file; units and meanings are RAD's.", table)
    for path in GENERATED.rglob("*.md"):
        if str(path.relative_to(GENERATED).with_suffix("")) not in written:
            path.unlink()


write_reference()


def skip_imported(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what a module imports: autodoc warns of compiled classes before it finds that they are not the module's."""
    module = getattr(obj, "__module__", None) or ""
    ours = module.partition(".")[0] == "rampflow" or (SCRIPTS / f"{module}.py").exists()
    return None if ours or not module else True


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-skip-member", skip_imported)
