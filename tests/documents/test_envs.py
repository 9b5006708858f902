"""The environments: imported packages are required, required ones are pinned, and the files of pip and conda agree."""

import ast
import functools
import importlib.metadata
import re
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from repository import ROOT

ENVS = ROOT / "envs"
#: Folders and files with code, and the files that require what it may import. The longest folder that holds a file decides.
REQUIRED_IN = {
    "scripts": ("rampflow.in",),
    "scripts/watch.py": ("rampflow.in", "watch.in"),
    "scripts/fetch.py": ("rampflow.in", "fetch.in"),
    "scripts/view.py": ("rampflow.in", "view.in"),
    "scripts/rampflow/views": ("rampflow.in", "view.in"),
    "workflow": ("rampflow.in",),
    "envs": ("rampflow.in",),
    "plugins": ("rampflow.in",),
    "docs": ("rampflow.in", "dev.in", "docs.in"),
    "tests": ("rampflow.in", "dev.in"),
    "tests/peer": ("rampflow.in", "dev.in", "peer.txt"),
    "tests/validation": ("rampflow.in", "dev.in", "peer.txt", "romanisim.txt"),
}


def canonical(package):
    """The name of a package as pip compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()


def pins(name):
    """Package to version of a lock file."""
    lines = (ENVS / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@functools.cache
def required(name):
    """Packages that a file requires, with the comment of each."""
    result = {}
    for line in (ENVS / name).read_text().splitlines():
        package, _, comment = line.partition("#")
        if package.strip():
            result[canonical(re.split(r"[=<>~!\[]", package)[0].strip())] = comment.strip()
    return result


def imports(text, rules=False):
    """Top-level names of the modules that a Python file or a file of rules imports, wherever in it."""
    if rules:
        return {name.partition(".")[0] for name in re.findall(r"^\s*(?:from|import) ([\w.]+)", text, re.MULTILINE)}
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "importorskip":
            names.add(node.args[0].value)
    return {name.partition(".")[0] for name in names}


installed = functools.cache(importlib.metadata.packages_distributions)


def distributions(names):
    """Packages that the names come from, each as the set of those that may give it; without the standard library."""
    return {name: {canonical(p) for p in installed().get(name, [name])} for name in names - sys.stdlib_module_names}


def files():
    """Python files and rules of the project, with the files that require what each may import."""
    for folder in (folder for folder in REQUIRED_IN if "/" not in folder):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".smk") or path.name == "Snakefile":
                homes = [home for home in REQUIRED_IN if path.is_relative_to(ROOT / home)]
                yield path, REQUIRED_IN[max(homes, key=len)]


def own_modules():
    """Names of the project's modules and packages."""
    paths = [path for folder in ("scripts", "plugins", "tests") for path in (ROOT / folder).rglob("*.py")]
    return {path.parent.name if path.stem == "__init__" else path.stem for path in paths}


@pytest.mark.slow
def test_every_imported_package_is_required():
    own, missing = own_modules(), []
    for path, sources in files():
        packages = set().union(*(required(source) for source in sources))
        names = imports(path.read_text(), rules=path.suffix != ".py") - own
        missing += [
            f"{path.relative_to(ROOT)} imports {name}: list {' or '.join(sorted(found))} in envs/{sources[-1]}"
            for name, found in distributions(names).items()
            if not found & packages
        ]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import numpy.linalg as l", {"numpy"}),
        ("def f():\n    from scipy.ndimage import label", {"scipy"}),
        ("from . import x", set()),
        ("import pytest\npytest.importorskip('romancal.x')", {"pytest", "romancal"}),
    ],
)
def test_imports_are_found(text, expected):
    assert imports(text) == expected


def test_imports_of_rules_are_found():
    text = "rule x:\n    input: 'a'\nif True:\n    from snakemake.utils import min_version\n"
    assert imports(text, rules=True) == {"snakemake"}


def test_names_are_those_of_the_packages():
    """As a package is installed, and the name itself where it isn't."""
    expected = {"yaml": {"pyyaml"}, "erfa": {"pyerfa"}, "no_such_module": {"no-such-module"}}
    assert distributions({"yaml", "erfa", "no_such_module", "os"}) == expected


@pytest.mark.parametrize(
    ("name", "folders"), [("rampflow.in", ("scripts", "workflow", "envs", "plugins")), ("dev.in", ("tests",))]
)
@pytest.mark.slow
def test_packages_without_an_import_have_a_comment(name, folders):
    """So that a package goes from the file when the last import of it goes."""
    names = set().union(
        *(
            imports(path.read_text(), rules=path.suffix != ".py")
            for path, _ in files()
            if path.relative_to(ROOT).parts[0] in folders
        )
    )
    imported = set().union(*distributions(names).values())
    assert {package for package, comment in required(name).items() if not comment} <= imported


def test_conda_and_pip_pin_the_same_versions():
    environment = yaml.safe_load((ENVS / "rampflow.yaml").read_text())
    python, pip, packages = environment["dependencies"]
    assert pip == "pip"
    assert dict(line.split("==") for line in packages["pip"]) == pins("rampflow.txt")
    assert int(re.fullmatch(r"python =3\.(\d+)", python)[1]) >= 11


def test_uv_and_pip_pin_the_same_versions():
    locked = tomllib.loads((ENVS / "pylock.toml").read_text())
    assert {p["name"]: p["version"] for p in locked["packages"]} == {canonical(k): v for k, v in pins("rampflow.txt").items()}
    assert all(file["hashes"]["sha256"] for p in locked["packages"] for file in [p["sdist"], *p.get("wheels", [])])
    assert locked["requires-python"] == ">=3.11"


def test_pixi_and_pip_pin_the_same_versions():
    settings = tomllib.loads((ENVS / "pixi.toml").read_text())
    assert {name: version.removeprefix("==") for name, version in settings["pypi-dependencies"].items()} == pins("rampflow.txt")
    python = yaml.safe_load((ENVS / "rampflow.yaml").read_text())["dependencies"][0]
    assert python == f"python ={settings['dependencies']['python'].removesuffix('.*')}"


@pytest.mark.parametrize("name", ["rampflow", "watch", "fetch", "view", "docs", "cluster"])
def test_the_package_requires_what_the_clone_does(name):
    """With ranges in place of pins; the pinned versions are in them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"rampflow": project["dependencies"], **project["optional-dependencies"]}
    requirements = {canonical(requirement.name): requirement for requirement in map(Requirement, groups[name])}
    assert set(requirements) == set(required(f"{name}.in"))
    locked = pins("rampflow.txt") | pins("dev.txt") | pins(f"{name}.txt")
    versions = {canonical(package): version for package, version in locked.items()}
    assert [str(r) for package, r in requirements.items() if versions[package] not in r.specifier] == []


@pytest.mark.parametrize("name", ["rampflow", "watch", "fetch", "view", "dev", "docs", "cluster"])
def test_every_required_package_is_pinned(name):
    """Each line of the .in file has its pin, in this lock file or in one that it builds on."""
    assert required(f"{name}.in")
    below = {} if name in ("watch", "fetch", "view") else pins("dev.txt")
    pinned = {canonical(package) for package in pins("rampflow.txt") | below | pins(f"{name}.txt")}
    assert set(required(f"{name}.in")) <= pinned


@pytest.mark.parametrize(("name", "package"), [("watch", "apprise"), ("fetch", "astroquery"), ("view", "regions")])
def test_packages_of_single_programs_are_not_in_the_main_environment(name, package):
    assert package not in pins("rampflow.txt")
    assert pins(f"{name}.txt").items() <= pins("dev.txt").items(), "the tests run with what users get"


def test_no_executor_of_a_cluster_is_imported_on_a_workstation():
    """Snakemake imports every plugin that is installed, at each start."""
    assert not [name for name in pins("rampflow.txt") if name.startswith("snakemake-executor-plugin-")]
    assert any(name == "snakemake-executor-plugin-slurm" for name in pins("cluster.txt"))


def test_every_rule_with_a_script_can_run_in_the_conda_environment():
    """`snakemake --sdm conda`: a rule that runs a program names the file."""
    for path in [*sorted((ROOT / "workflow" / "rules").glob("*.smk")), ROOT / "workflow" / "simulate.smk"]:
        for rule in re.split(r"^ *rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            if "shell:" in rule:
                assert "envs/rampflow.yaml" in rule, rule.partition(":")[0]


def test_the_oldest_snakemake_is_the_same_everywhere():
    """What the workflow and the package ask for, what is tested, and what the README says."""
    oldest = re.search(r'^min_version\("([\d.]+)"\)', (ROOT / "workflow" / "Snakefile").read_text(), re.MULTILINE)[1]
    assert re.search(rf"^SNAKEMAKE \?= {re.escape(oldest)}\.0$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f'snakemake: ["{oldest}.0", "9.*"]' in (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f'"snakemake>={oldest},<10"' in (ROOT / "pyproject.toml").read_text()
    assert f"Snakemake {oldest} or newer (below 10)" in (ROOT / "README.md").read_text()
