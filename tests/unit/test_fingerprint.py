"""The fingerprint covers what a script imports of this project, without comments and docstrings."""

import ast
import shutil
import subprocess
import sys

import pytest

from rampflow.chain import STEPS
from rampflow.folders import SCRIPTS
from rampflow.workflow.fingerprint import files_of, fingerprint, imported, spell_out

#: Imports a script and says which files of the project that takes.
IMPORT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
importlib.import_module(sys.argv[2])
print(*(m.__file__ for m in list(sys.modules.values()) if (getattr(m, "__file__", None) or "").startswith(sys.argv[1])))
"""


@pytest.mark.parametrize("name", [*STEPS, "finalize", "astrometric_catalog", "report"])
@pytest.mark.slow
def test_the_fingerprint_covers_every_import_at_start(name):
    done = subprocess.run([sys.executable, "-c", IMPORT, str(SCRIPTS), name], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert len(loaded) > 5
    assert loaded <= {str(path) for path in files_of(name)}


def test_imports_of_imports_and_those_in_functions_are_followed():
    used = {str(path.relative_to(SCRIPTS / "rampflow")) for path in files_of("flatfield") if path.parent != SCRIPTS}
    assert {"step/job.py", "step/exposure.py", "files/asdf_reader.py", "files/yaml_tree.py", "__init__.py"} <= used
    assert {"dq.py", "errors.py", "detector.py"} <= used
    assert not any(name.startswith(("catalog/", "wcs/", "workflow/", "pictures/")) for name in used)
    # In a function of finalize.py alone:
    assert SCRIPTS / "rampflow/files/parquet.py" in files_of("finalize")
    assert SCRIPTS / "rampflow/kernels/linearity.py" in files_of("linearity")


def test_every_form_of_an_import():
    code = """
import rampflow.dq
from rampflow import detector as d, errors
from . import near
from ..files.asdf_reader import AsdfFile
def later():
    import numpy
    importlib.import_module("rampflow.imports")
    importlib.import_module(name)
"""
    assert set(imported(ast.parse(code), "rampflow.step")) == {
        "rampflow.dq",
        "rampflow.detector",
        "rampflow.errors",
        "rampflow.step.near",
        "rampflow.files.asdf_reader.AsdfFile",
        "numpy",
        "rampflow.imports",
    }


@pytest.fixture
def copy(tmp_path):
    """A copy of the scripts, and the fingerprint of a script in it after an edit of one of its files."""
    number = iter(range(100))

    def edited(script, path="", old="", new=""):
        scripts = tmp_path / str(next(number))
        shutil.copytree(SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
        if path:
            text = (scripts / path).read_text()
            assert text.count(old) >= 1
            (scripts / path).write_text(text.replace(old, new, 1))
        return fingerprint(script, scripts)

    return edited


def test_the_same_code_elsewhere_is_the_same(copy):
    assert copy("photom") == fingerprint("photom")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("rampflow/dq.py", '"""', '"""Another word. '),
        ("rampflow/dq.py", "\n\n", "\n# A comment.\n\n\n"),
        ("flatfield.py", '    """Process one exposure.', '    """Divide it.'),
        ("flatfield.py", "def usable_flat(", "def usable_flat(  # a comment\n    "),
        ("rampflow/files/yaml_tree.py", '"""A YAML mapping that keeps its tag."""', '"""A mapping."""'),
        ("rampflow/release.txt", ".", ".9."),
    ],
)
def test_comments_and_layout_do_not_change_the_fingerprint(copy, path, old, new):
    assert copy("flatfield", path, old, new) == fingerprint("flatfield")


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("flatfield.py", "np.float32(1)", "np.float32(2)"),
        ("rampflow/dq.py", "SATURATED = 1 << 1", "SATURATED = 1 << 2"),
        ("rampflow/step/job.py", "block: int = 32", "block: int = 64"),
        ("rampflow/files/asdf_writer.py", "_HEADROOM = 1 << 17", "_HEADROOM = 1 << 18"),
        ("rampflow/chain.py", '"photom", "wfi_image"', '"photometry", "wfi_image"'),
    ],
)
def test_edits_of_used_code_change_the_fingerprint(copy, path, old, new):
    assert copy("flatfield", path, old, new) != fingerprint("flatfield")


def test_edits_of_other_code_do_not_change_the_fingerprint(copy):
    assert copy("flatfield", "rampflow/kernels/linearity.py", "import", "import math, ") == fingerprint("flatfield")
    assert copy("linearity", "rampflow/kernels/linearity.py", "import", "import math, ") != fingerprint("linearity")


@pytest.mark.parametrize(
    ("one", "other"),
    [("f(1)", "f(1.0)"), ("x = None", "x = 'None'"), ("f(a, b)", "f([a, b])"), ("a - b", "b - a"), ("'a'; f()", "f()")],
)
def test_different_syntax_trees_have_different_spellings(one, other):
    """A string on its own counts as a comment."""
    assert (spell_out(ast.parse(one)) == spell_out(ast.parse(other))) == one.startswith("'")


def test_the_spelling_does_not_depend_on_the_python_version():
    """`ast.dump` differs between versions, and a new Python must not repeat everything."""
    assert spell_out(ast.parse("def f(x: int = 1): return None")) == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='x',annotation=Name(id='int',))]defaults=[Constant(value=1,)])"
        "body=[Return(value=Constant(value=None,))])])"
    )
