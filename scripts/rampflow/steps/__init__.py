"""The scripts as modules: ``rampflow.steps.ramp_fitting`` is ``scripts/ramp_fitting.py``.

The functions of the steps take arrays and need no file::

    from rampflow.steps.ramp_fitting import fit_ramps
"""

from rampflow.folders import SCRIPTS

# The scripts are no copies: Python looks for the modules of this package in their folder.
__path__ = [str(SCRIPTS)]
