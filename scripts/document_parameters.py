"""document_parameters: write config/config.yaml and config/README.md from the declarations, and workflow/files.txt."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import declarations
import yaml

from rampflow.chain import STEPS
from rampflow.step.declaration import Parameter, Range, Step
from rampflow.workflow import configuration

SCRIPTS = Path(__file__).resolve().parent
CONFIG, WORKFLOW = SCRIPTS.parent / "config", SCRIPTS.parent / "workflow"

HEAD = """\
# Configuration of rampflow: every key with its default. Written by scripts/document_parameters.py from the declarations in
# scripts/; config/README.md explains each. Override with --config, or with a file of your own and --configfile.

# Raw files (_uncal.asdf), folders of them, or association files (.json); one, or a list. Relative to the working folder.
input: []

# Exposures of these inputs to leave out, by name: r0000101001001001001_0001_wfi01_f158; one, or a list.
exclude: []

# Where the products go.
results: results

# Keep the files between the steps: true, false, or a list of steps.
keep_intermediates: [ramp_fitting]

references:
  # CRDS context; null: the environment's CRDS_CONTEXT, or the cache's default.
  crds_context: null
  # Reference files to use for every exposure in place of CRDS's choice, as {flat: my_flat.asdf}; N/A for none.
  override: {}
  # Use overriding references that were made for another detector or optical element, with a warning; by default they are
  # refused.
  allow_mismatch: false

# Where the stars that exposures are aligned to come from: GAIADR3_S3 (Gaia DR3 on S3), GAIADR3, GAIADR2, GAIADR1 or
# GAIAREFCAT (a web service), a file with columns ra and dec, or the folder of a HATS catalog. In a file, proper motions (pmra,
# pmdec in mas/yr) need ref_epoch, the year of the positions; parallax (mas) counts where there is one.
astrometric_catalog: GAIADR3_S3

# Exposures that should be aligned to the stars and can't be are failures without products; false: they are delivered unaligned.
require_alignment: false

# Folder on a disk of the cluster's nodes for the files that only the next step reads, as $TMPDIR; null: with the other
# intermediates.
scratch: null

steps:
"""

README_HEAD = """\
# Configuration

`config.yaml` holds every key with its default. Change a value on the command line or in a file of your own:

    snakemake --cores 8 --config input=L1_asn.json steps='{ramp_fitting: {rejection_threshold: 5.5}}'
    snakemake --cores 8 --configfile my.yaml

An unknown key, a wrong type or a value out of range stops the run before any job.

| key | default | meaning | romancal |
|---|---|---|---|
| `input` | `[]` | raw files (`_uncal.asdf`), folders of them (each exposure on its own), or association files (`.json`, members relative to the file); one, or a list | the file after `strun roman_elp` |
| `exclude` | `[]` | exposures of these inputs to leave out, by name (`r0000101001001001001_0001_wfi01_f158`); one, or a list | |
| `results` | `results` | folder of the products | `output_dir` |
| `keep_intermediates` | `[ramp_fitting]` | keep the files between the steps: `true`, `false`, or a list of steps in place of this one. The image of ramp_fitting, as large as a product, saves the steps on the ramp when a dark, distortion, photom or flat reference changes. What tweakreg and the products are made from stays in any case, so that another alignment costs seconds | `steps.STEP.save_results` |
| `references.crds_context` | `null` | CRDS context; `null`: `CRDS_CONTEXT`, or the cache's default | `CRDS_CONTEXT` |
| `references.override` | `{}` | `{type: file}` in place of CRDS's choice, for every exposure; `N/A` for none | `steps.STEP.override_TYPE` |
| `references.allow_mismatch` | `false` | use overriding references that were made for another detector or optical element, with a warning; by default they are refused | |
| `astrometric_catalog` | `GAIADR3_S3` | where the stars that exposures are aligned to come from: `GAIADR3_S3` (Gaia DR3 on S3), `GAIADR3`, `GAIADR2`, `GAIADR1` or `GAIAREFCAT` (a web service, `ASTROMETRIC_CATALOG_URL`), a file (ecsv, parquet, csv, fits) with columns ra and dec (degrees, ICRS), or the folder of a HATS catalog. In a file, proper motions `pmra`, `pmdec` (mas/yr, `pmra` with the factor cos δ) need `ref_epoch`, the Julian year of the positions; `parallax` (mas) counts where there is one | `steps.tweakreg.abs_refcat` |
| `require_alignment` | `false` | an imaging exposure that isn't aligned to the stars (`FAILED` or `SKIPPED` in `meta.cal_step.tweakreg`, a fully saturated one too) is a failure: it has no products, the reason is in the summary, and the run ends with an error. `false`: it is delivered unaligned | |
| `scratch` | `null` | folder on a disk of a cluster's nodes, such as `$TMPDIR`, for the files that only the next step reads (16 times the size of a raw file); each cluster job uses a folder of its own in it and removes it at its end. `null`: with the other intermediates. Without a cluster it has no effect but the name of their folder | |
| `steps.STEP.skip` | `false` | leave the step out (every step but dq_init and ramp_fitting) | `scratch` | `null` | folder on a disk of a cluster's nodes, such as `$TMPDIR`, for the files that only the next step reads (16 times the size of a raw file); each cluster job uses a folder of its own in it and removes it at its end. `null`: with the other intermediates. Without a cluster it has no effect but the name of their folder | |
| `steps.STEP.skip` |

Paths are relative to the working folder (`--directory`, or where snakemake is started). A step that is left out, or that has
no reference, reads `SKIPPED` in `meta.cal_step`.

## Plausible references

A step refuses a reference that it can't believe, and names file, field, value and limits. The sections below list the limits. Of a
frame, the median counts, and a frame without any finite value is refused; a pixel beyond the limits is treated as one that the
reference doesn't know. Of a table, every value counts. The limits are declared in the step's script.

A reference made for another detector or optical element is refused too, by its metadata (`meta.instrument.detector`,
`meta.instrument.optical_element`, or several in `p_detector`, `p_optical_element` with `|` between them). `N/A`, `?` and missing
entries match everything. CRDS may give one file to several optical elements: of its own choices these are not compared.
`references.allow_mismatch: true`, for what is named in `references.override`, or `--allow_mismatch` of a step turns the refusal
into a warning.

## Parameters of the steps

Names, units and defaults are romancal's. The last column has the name in romancal's pipeline, or says that the parameter is
ours alone. [docs/from-romancal.md](../docs/from-romancal.md) has the other way round, and what romancal has and rampflow has not.
"""  # noqa: E501


#: Parameters that romancal has not.
OURS_ALONE = {
    "refpix": ("mean_is_missing",),
    "wfi18_transient": ("check_fit",),
    "ramp_fitting": ("saturated_in_median",),
    "tweakreg": ("refine", "margin"),
}


def romancal_name(step: Step, parameter: Parameter) -> str:
    """Name of a parameter in romancal's pipeline."""
    if parameter.name in OURS_ALONE.get(step.name, ()):
        return "ours alone"
    return f"`{STEPS[step.name].romancal or step.name}.{parameter.name}`"


def as_yaml(value) -> str:
    """A value as the configuration's file has it."""
    return yaml.safe_dump(value).splitlines()[0]


def takes(parameter: Parameter) -> str:
    """What a parameter accepts, for the reference."""
    text = " or ".join(f"`{c}`" for c in parameter.choices) or parameter.type.__name__
    return text + (f" ≥ {parameter.minimum:g}" if parameter.minimum is not None else "")


def between(low: float, high: float) -> str:
    """Limits in words."""
    return f"{low:g} to {high:g}"


def named(field: str, limits: Range) -> str:
    """What a range is about, for the reference."""
    field = f"`{field}`" if limits.plane is None else f"`{field}[{limits.plane}]`"
    return f"{limits.quantity} ({field})" if limits.quantity else field


def config_section(step: Step) -> str:
    """The section of a step in config.yaml."""
    lines = [f"  # {step.summary.splitlines()[0]}", f"  {step.name}:"]
    if STEPS[step.name].optional:
        lines.append("    skip: false")
    for p in configuration.parameters_of(step):
        unit = f" [{p.unit}]" if p.unit else ""
        lines.extend(textwrap.wrap(p.meaning + unit, 120, initial_indent="    # ", subsequent_indent="    # "))
        lines.append(f"    {p.name}: {as_yaml(p.default)}")
    # YAML reads a section without a key as null, which a mapping of keys is not.
    return "\n".join(lines if len(lines) > 2 else [lines[0], lines[1] + " {}"]) + "\n"


def readme_section(step: Step) -> str:
    """The section of a step in README.md."""
    lines = [f"\n### {step.name}\n", step.summary + "\n"]
    if step.references:
        lines.append("References: " + "; ".join(f"`{r.type}`, {r.meaning}" for r in step.references) + ".\n")
    if any(reference.plausible for reference in step.references):
        lines += ["| reference | field | plausible | median of a frame | unit | source |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{reference.type}` | {named(field, limits)} | {between(limits.minimum, limits.maximum)} "
            f"| {between(*limits.median) if limits.median else ''} | {limits.unit} | {limits.source} |"
            for reference in step.references
            for field, limits in reference.plausible.items()
        ]
        lines.append("")
    if parameters := configuration.parameters_of(step):
        lines += ["| parameter | takes | default | unit | meaning | romancal |", "|---|---|---|---|---|---|"]
        lines += [
            f"| `{p.name}` | {takes(p)} | `{as_yaml(p.default)}` | {p.unit} | {p.meaning} | {romancal_name(step, p)} |"
            for p in parameters
        ]
        lines.append("")
    return "\n".join(lines)


def files_of_jobs() -> list[Path]:
    """Files besides the rules that a run needs, for a workflow that takes the rules from a hosted repository."""
    found = [
        *SCRIPTS.rglob("*.py"),
        *SCRIPTS.rglob("*.txt"),
        *(WORKFLOW / "schemas").iterdir(),
        *(WORKFLOW / "report").iterdir(),
    ]
    return sorted(path for path in found if path.is_file())


def documents() -> dict:
    """Content of each document, by its path."""
    steps = declarations.steps().values()
    return {
        CONFIG / "config.yaml": HEAD + "\n".join(config_section(step) for step in steps),
        CONFIG / "README.md": README_HEAD + "".join(readme_section(step) for step in steps),
        WORKFLOW / "files.txt": "".join(f"{path.relative_to(CONFIG.parent).as_posix()}\n" for path in files_of_jobs()),
    }


def main() -> int:
    """Write the documents."""
    for path, text in documents().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
