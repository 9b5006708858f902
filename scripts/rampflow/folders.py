"""Where the library, the scripts and the workflow are: in a clone, or in the installed package.

====================  ==========================  ==============================
what                  in a clone                  in the package
====================  ==========================  ==============================
library               ``scripts/rampflow``        ``rampflow``
scripts               ``scripts``                 ``rampflow/share/scripts``
workflow              ``workflow``                ``rampflow/share/workflow``
====================  ==========================  ==============================
"""

from __future__ import annotations

from pathlib import Path

LIBRARY = Path(__file__).resolve().parent
SHARE = LIBRARY / "share"  #: made by the build of the package, see pyproject.toml
#: Folder that holds `scripts`, `workflow`, `config` and `envs`.
HOME = SHARE if SHARE.is_dir() else LIBRARY.parent.parent
SCRIPTS = HOME / "scripts"
WORKFLOW = HOME / "workflow"
SNAKEFILE = WORKFLOW / "Snakefile"
