"""Where compiled code is cached."""

import os
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
RUN = """
from rampflow.kernels.refpix import combine
import numba
import numpy as np
spectrum = np.empty(8, np.complex64)
combine((np.full((1, 5), 2j),) * 3, np.ones((1, 3, 5), np.complex64), (0, 0), (0, 0), spectrum)
print(spectrum[1].imag, numba.config.CACHE_DIR)
"""


def run(**environment):
    # Neither the folder of the source nor the user's is tried, as if they couldn't be written.
    environment["NUMBA_CACHE_LOCATOR_CLASSES"] = "UserProvidedCacheLocator"
    inherited = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", RUN],
        env={**inherited, "PYTHONPATH": str(SCRIPTS), **environment},
        capture_output=True,
        text=True,
    )


def test_kernels_run_where_nothing_can_be_cached(tmp_path):
    done = run(TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    result, folder = done.stdout.split()
    assert result == "6.0"
    assert "NUMBA_CACHE_DIR" in done.stderr
    assert folder.startswith(str(tmp_path)) and not list(tmp_path.iterdir())  # gone at the end


def test_a_given_folder_takes_the_cache(tmp_path):
    done = run(NUMBA_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0 and not done.stderr
    assert list(tmp_path.rglob("refpix.combine*.nbc"))
