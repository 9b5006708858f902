"""The clone that is tested: its folder, its configuration, and its revision for measurements."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "plugins" / "progress"  #: in PYTHONPATH, Snakemake finds it without an installation
CODE = ("Snakefile", "workflow", "scripts", "config", "envs")  #: what a run depends on


def revision() -> str:
    """Short name of the commit, with ``-dirty`` where the code has changed since."""

    def git(*words):
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)

    name = git("rev-parse", "--short", "HEAD").stdout.strip() or "unknown"
    return name + ("-dirty" if git("diff", "--quiet", "HEAD", "--", *CODE).returncode == 1 else "")


def with_commented_keys(text):
    """A configuration file with the keys that are comments: without the # at the beginning of their lines."""
    return re.sub(r"^#(?=(  |    )?\w+:)", "", text, flags=re.MULTILINE)
