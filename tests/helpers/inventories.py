"""Inventories of small raw exposures, with a small CRDS cache of simulated references, without a server.

CRDS keeps its configuration until the process ends, so each query of CRDS runs in its own process.
"""

import json
import os
import subprocess
import sys

import declarations
from simulator import simulate_references
from small_files import SCRIPTS, ramp, write_raw

from rampflow.step.declaration import reference_types

SIZE = 256
SERVERLESS = "https://crds-serverless-mode.stsci.edu"
#: Builds the inventory that the configuration on standard input asks for; says what it is and which raw files it opened.
BUILD = """
import json, sys
from pathlib import Path
import declarations
from rampflow import errors
from rampflow.files import asdf_reader
from rampflow.step.declaration import reference_types
from rampflow.workflow import configuration
from rampflow.workflow.inventory_building import build_inventory
opened, open_file = [], asdf_reader.AsdfFile.__init__
def counted(self, path, *, parse=True, source=None):
    if parse:
        opened.append(Path(path).name)
    open_file(self, path, parse=parse, source=source)
asdf_reader.AsdfFile.__init__ = counted
config = configuration.validated(json.load(sys.stdin), declarations.steps())
try:
    found = build_inventory(config, Path.cwd(), Path(".rampflow/inventory.json"), declarations.steps())
except errors.RampflowError as error:
    sys.exit(f"refused: {error}")
exposures = {
    e.stem: [e.association, e.exposure_type, e.detector, e.shape, e.chain, e.references] for e in found.exposures.values()
}
said = {"context": found.context, "exposures": exposures, "opened": opened, "missing": found.missing_references()}
said |= {"parameters": {e.stem: e.step_parameters for e in found.exposures.values()}, "notices": found.notices}
said |= {name: {a: list(stems) for a, stems in getattr(found, name).items()} for name in ("excluded", "left_out")}
said |= {"pointings": {stem: e.get("ra_ref") for stems in found.excluded.values() for stem, e in stems.items()}}
print(json.dumps({**said, "links": found.links, "selected": found.selected}))
"""


def make_two_contexts(path):
    """A CRDS cache with references of two detectors, and a second context with a new flat for WFI01."""
    types = tuple(reference_types(declarations.steps().values()))
    simulate_references.make_cache(path, ("WFI01", "WFI18"), SIZE, 1, new=types)
    simulate_references.make_cache(path, ("WFI01",), SIZE, 2, context="roman_0002.pmap", new=("flat",))
    return path


def ask(folder, cache, config, **environment):
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("CRDS_", "STPIPE_"))}
    variables |= {"PYTHONPATH": str(SCRIPTS), "CRDS_PATH": str(cache), "CRDS_SERVER_URL": SERVERLESS, **environment}
    return subprocess.run(
        [sys.executable, "-c", BUILD], input=json.dumps(config), cwd=folder, env=variables, capture_output=True, text=True
    )


def built(folder, cache, config=None, **environment):
    done = ask(folder, cache, {"input": "raw"} if config is None else config, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def refused(folder, cache, config=None, **environment):
    done = ask(folder, cache, {"input": "raw"} if config is None else config, **environment)
    # An uncaught error has no "refused".
    assert done.returncode == 1 and "refused: " in done.stderr, done.stderr
    said = done.stderr.rpartition("refused: ")[2]
    assert "Traceback" not in said
    return said


DATA = ramp(resultants=4, rows=SIZE, columns=SIZE)


def write_exposure(folder, name, kind="WFI_IMAGE", detector="WFI01", element="F158"):
    meta = {"exposure.type": kind, "instrument.detector": detector, "instrument.optical_element": element}
    return write_raw(folder / f"{name}_uncal.asdf", DATA, meta)
