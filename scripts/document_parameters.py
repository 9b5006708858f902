"""Write config/config.yaml, config/README.md, docs/reference/numbers.md and workflow/files.txt from the declarations."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import declarations
import yaml

from rampflow.chain import STEPS
from rampflow.quality.numbers import as_markdown
from rampflow.step.declaration import Parameter, Range, Step
from rampflow.workflow import configuration

SCRIPTS = Path(__file__).resolve().parent
CONFIG, WORKFLOW = SCRIPTS.parent / "config", SCRIPTS.parent / "workflow"

HEAD = """\
# Configuration of rampflow: every key with its default. Written by scripts/document_parameters.py from the declarations in
# scripts/; config/README.md explains each key. Change values with --config, or with your own file and --configfile.

# Input: raw files (_uncal.asdf) or ramps (_dqinit.asdf), folders of raw files, or association files (.json). One, or a list.
# Relative to the working folder, or addresses: s3://bucket/folder/, https://server/L1_asn.json.
input: []

# Exposures of the input to leave out: names, patterns such as "*_wfi07_*", or selections such as {detector: WFI07}. One, or a
# list.
exclude: []

# true: leave out files that can't be read yet, with a warning for each, and process the others. false: refuse them.
incoming: false

# Folder of the products.
results: results

# Steps whose files are kept: true (all), false (none), or a list of steps.
keep_intermediates: [ramp_fitting]

references:
  # CRDS context. null: CRDS_CONTEXT of the environment, or the default of the cache.
  crds_context: null
  # Reference files for every exposure in place of CRDS's choice, such as {flat: my_flat.asdf}. N/A: none.
  override: {}
  # Accept overriding references of another detector or optical element, with a warning. false: refuse them.
  allow_mismatch: false
  # Take parameters of the steps from CRDS (references pars-*), as romancal does. Values of your own have precedence.
  step_parameters: true

# Astrometric catalog: GAIADR3_S3 (Gaia DR3 on S3), GAIADR3, GAIADR2, GAIADR1 or GAIAREFCAT (a web service), a file with
# columns ra and dec, or a HATS catalog: a folder, s3://BUCKET/FOLDER or https://SERVER/FOLDER.
astrometric_catalog: GAIADR3_S3

# Version of the data model (RAD) of all files that are written. "1.1": that of the newest released romancal. "1.2": the newest.
data_model: "1.1"

# true: an exposure that should be aligned to the stars and isn't has no products, and the run ends with an error.
# false: it is delivered unaligned.
require_alignment: false

# Folder on a disk of the cluster's nodes, such as $TMPDIR, for files that only the next step reads. null: with the other
# intermediates.
scratch: null

# Jobs: step (each step of an exposure is a job, with a file after each step) or exposure (all steps of an exposure are one job,
# with arrays in memory).
job_per: step

# Limits of the numbers of exposures (docs/reference/numbers.md). An exposure beyond one is flagged in exposures.ecsv and in the
# summary of the run, such as {limits: {psf_fwhm: {maximum: 0.2}, image_median: {minimum: 0.1, maximum: 2}}}.
qa:
  limits: {}

# References and parameters of selected exposures, a list. A later entry wins over an earlier one, and over steps below:
#   - select: {detector: WFI06, optical_element: F129}
#     references: {flat: my_flat.asdf}
#   - select: {exposure: "*_0001_wfi01_*"}
#     steps: {ramp_fitting: {rejection_threshold: 6}}
overrides: []

steps:
"""

README_HEAD = """\
# Configuration

`config.yaml` has every key with its default. Change a value on the command line or in your own file:

    snakemake --cores 8 --config input=L1_asn.json steps='{ramp_fitting: {rejection_threshold: 5.5}}'
    snakemake --cores 8 --configfile my.yaml

An unknown key, a wrong type or a value out of range stops the run before any job. Paths are relative to the working folder
(`--directory`, or the folder in which snakemake is started).

| key | default | meaning | romancal |
|---|---|---|---|
| [`input`](#input) | `[]` | raw files, folders of raw files, or association files; one, or a list | file after `strun roman_elp` |
| [`exclude`](#exclude) | `[]` | exposures of the input to leave out: names, patterns or selections; one, or a list | |
| [`incoming`](#incoming) | `false` | leave out files that can't be read yet, with a warning | |
| `results` | `results` | folder of the products, or its address on S3 ([more](../docs/how-to/remote.md#results-on-s3)) | `output_dir` |
| [`keep_intermediates`](#keep_intermediates) | `[ramp_fitting]` | steps whose files are kept | `steps.STEP.save_results` |
| `references.crds_context` | `null` | CRDS context; `null`: `CRDS_CONTEXT`, or the cache's default | `CRDS_CONTEXT` |
| [`references.override`](#referencesoverride) | `{}` | reference files in place of CRDS's choice | `steps.STEP.override_TYPE` |
| [`references.allow_mismatch`](#referencesoverride) | `false` | accept overriding references of another detector or optical element | |
| [`references.step_parameters`](#referencesstep_parameters) | `true` | take parameters of the steps from CRDS | `STPIPE_DISABLE_CRDS_STEPPARS` |
| [`astrometric_catalog`](#astrometric_catalog) | `GAIADR3_S3` | stars to which exposures are aligned | `steps.tweakreg.abs_refcat` |
| [`data_model`](#data_model) | `1.1` | version of the data model (RAD) that is written | |
| [`require_alignment`](#require_alignment) | `false` | treat an exposure that isn't aligned as a failure | |
| [`scratch`](#scratch) | `null` | folder on a disk of the cluster's nodes for files that only the next step reads | |
| [`job_per`](#job_per) | `step` | `step`: each step of an exposure is a job; `exposure`: all steps of an exposure are one job | |
| [`qa.limits`](#qalimits) | `{}` | limits of the numbers of exposures | |
| [`overrides`](#overrides) | `[]` | references and parameters of selected exposures | |
| `steps.STEP.skip` | `false` | leave the step out (every step except dq_init and ramp_fitting) | `steps.STEP.skip` |
| `steps.STEP.PARAMETER` | | see [Parameters of the steps](#parameters-of-the-steps) | `steps.STEP.PARAMETER` |

In `meta.cal_step`, a step that is left out or has no reference is `SKIPPED`.

## Keys

### input

- A raw file (`_uncal.asdf`), or a ramp as dq_init leaves it (`_dqinit.asdf`, `_dq_init.asdf`, `_ramp.asdf`;
  [what is done with it](../docs/algorithms.md#ramps-as-input)).
- A folder of raw files. Each exposure is treated as an association with one member.
- An association file (`.json`). Its members are relative to the file.
- The address of one of these, `s3://…` or `https://…`
  ([Exposures on S3 and web servers](../docs/how-to/remote.md)).

### exclude

The name of an exposure is its file's name without `_uncal.asdf` (or a ramp's suffix), such as `r0000101001001001001_0001_wfi01_f158`.
A pattern such as `"*_wfi07_*"` leaves out all exposures with such a name. A selection such as `{detector: WFI07}` has the keys that
[`overrides`](#overrides) takes. The file of an exposure that is left out by its name, or a pattern of it, need not exist. An entry that
matches no exposure is an error.

### incoming

For exposures that are still being copied. With `true`, a file that can't be read yet is left out of the run: it is half copied,
empty, not readable for you, or a member of an association that is not there. The start of the run and `logs/summary.txt` have a warning
for each with the reason, and the first line of the summary counts them. The next run takes the files that can be read by then, and aligns
their association again. If no file can be read, the run stops with the reasons.

An input without any file yet, a half-written association file, and an entry of `exclude` or `overrides` that matches nothing yet are
warnings, too. A file that can be read and that a step would refuse is still an error. `false` refuses all of these before any job.
See [Process exposures as they arrive](../docs/how-to/arrive.md).

### keep_intermediates

`true` keeps the files of all steps, `false` those of no step, and a list those of its steps.

By default the image of ramp_fitting is kept, which is as large as a product. A new dark, distortion, photom or flat reference then
does not repeat the steps on the ramp. Files from which tweakreg and the products are made stay in any case, so that another
alignment takes seconds.

### references.override

`{type: file}`, such as `{flat: my_flat.asdf}`, for every exposure of the run. `N/A` means no reference.

`references.allow_mismatch: true` accepts files that were made for another detector or optical element, with a warning. By default
they are refused.

### references.step_parameters

CRDS has parameters of the steps for some exposure types and dates, in references of the types `pars-rampfitstep`,
`pars-exposurepipeline` and so on. A parameter has the first of these values:

1. that of the last entry of [`overrides`](#overrides) that selects the exposure
2. yours: `steps.STEP.PARAMETER` in `--config` or your `--configfile`, even if it is the default
3. that of `pars-exposurepipeline`
4. that of the step's reference
5. the default in `config.yaml`

Write only what you change into your own file: a copy of `config.yaml` replaces all of CRDS's values. `false` leaves CRDS's parameters
out, and so does `STPIPE_DISABLE_CRDS_STEPPARS=true` in the environment. See
[Parameters from CRDS](../docs/how-to/parameters.md#parameters-from-crds).

### astrometric_catalog

| value | stars |
|---|---|
| `GAIADR3_S3` | Gaia DR3 in a public bucket on S3 |
| `GAIADR3`, `GAIADR2`, `GAIADR1`, `GAIAREFCAT` | a web service, at `ASTROMETRIC_CATALOG_URL` |
| a file (ecsv, parquet, csv, fits) | columns `ra` and `dec` (degrees, ICRS) |
| a folder, `s3://BUCKET/FOLDER` or `https://SERVER/FOLDER` | a HATS catalog or collection |

A file may have proper motions, `pmra` and `pmdec` (mas/yr; `pmra` includes the factor cos δ). It then needs `ref_epoch`, the Julian
year of the positions. `parallax` (mas) is optional.

### data_model

| value | files | read by |
|---|---|---|
| `1.1` | `ramp-2.1.0`, `wfi_image-2.1.0`, `wfi_wcs-2.1.0`, `segmentation_map-2.1.0` | romancal 1.1, roman_datamodels 1.1 and newer |
| `1.2` | `ramp-2.2.0`, `wfi_image-2.2.0`, `wfi_wcs-2.2.0`, `segmentation_map-2.2.0` | roman_datamodels 1.2 and newer |

`1.2` adds a second array of flags, `pixeldq2` in ramps and `dq2` in images. Both are zero, because no reference has such flags yet.
`1.2` also requires `meta.visit.wfi_acm_z_defocus_size` and `meta.ref_file.bam`, which get placeholders (−999999 and `?`) where the raw
file has none. All other values are the same. Raw files and references of both versions, and of all older ones, are read with either
value. A step script that you start by hand writes the data model of its input; dq_init has the option `--data_model`.

### require_alignment

`false` delivers exposures unaligned. With `true`, an imaging exposure that isn't aligned to the stars has no products, the reason
is in the summary, and the run ends with an error. Such an exposure is `FAILED` or `SKIPPED` in `meta.cal_step.tweakreg`; fully
saturated exposures are among them.

### scratch

A folder on a disk of the cluster's nodes, such as `$TMPDIR`, for files that only the next step reads: 16 times the size of a raw
file. Each cluster job uses its own folder in it, and removes it at its end. `null`: these files lie with the other intermediates. Without
a cluster, only the name of their folder changes.

### job_per

| value | jobs of an exposure | arrays between the steps |
|---|---|---|
| `step` | one for each step, and one for the products | in files |
| `exposure` | one for all steps, and one for the products | in memory |

The products are the same. `exposure` needs a quarter to a third less processor time and a quarter of the disk traffic, but more memory,
and a job that fails begins again with the raw exposure ([One job per exposure](../docs/how-to/one-job.md)). The profile for SLURM uses
it.

### qa.limits

`{NAME: {minimum: VALUE, maximum: VALUE}}`, such as `{psf_fwhm: {maximum: 0.2}}`, for the
[numbers of exposures](../docs/reference/numbers.md). A value is a number in the unit of the table, or a text with another unit, such as
`200 mas`. An exposure beyond a limit is flagged in `exposures.parquet` and `exposures.ecsv`, and named in the summary of a run.
`snakemake exposures` applies changed limits to the exposures of the results folder
([Look at a survey](../docs/how-to/survey.md)).

### overrides

Settings of some exposures alone:

```yaml
overrides:
  - select: {detector: WFI06, optical_element: F129}
    references: {flat: my_flat.asdf}
  - select: {exposure: ["*_0001_wfi01_*", "*_0002_wfi01_*"]}
    steps: {ramp_fitting: {rejection_threshold: 6}, refpix: {skip: true}}
```

`references` takes what [`references.override`](#referencesoverride) takes, and `steps` what `steps` takes. Where several entries set
one value for an exposure, the last of them counts. All keys of `select` must match:

| key | compares | example |
|---|---|---|
| `exposure` | name of the exposure | `"*_0001_wfi01_*"` |
| `association` | name of the association; without an association file, that of the exposure | `visit` |
| `visit` | name, identifier or number of the visit | `r0000101001001001001`, `0000101001001001001`, `1` |
| `program`, `execution_plan`, `pass`, `segment`, `observation` | number in `meta.observation` | `101` |
| `detector` | `meta.instrument.detector` | `WFI06` |
| `optical_element` | `meta.instrument.optical_element` | `F129` |
| `exposure_type` | `meta.exposure.type` | `WFI_IMAGE` |
| `ma_table` | name, number or identifier of the MultiAccum table | `1001` |

A value may be a list, of which one must match. `*`, `?` and `[...]` are those of file names. Case counts. A selection that matches no
exposure is an error, which lists the values that exist.

tweakreg and the search for its stars have one set of parameters for each association: select all aligned exposures of an association,
or the run stops. `steps: {tweakreg: {skip: true}}` leaves single exposures out of the alignment.
See [Change parameters of some exposures](../docs/how-to/parameters.md#for-some-exposures).

## Plausible references

A step refuses a reference with implausible values. The message names file, field, value and limits. The sections below list the
limits, which the scripts of the steps declare.

- The median of a frame must lie within the limits. A frame without any finite value is refused.
- A pixel beyond the limits is treated as one without a reference value. If more than 3 % of the pixels lie beyond the limits of the
  median, these pixels are treated in the same way, with a warning.
- Every value of a table must lie within the limits.

A reference for another detector or optical element is refused too. `meta.instrument.detector` and `meta.instrument.optical_element`
of the reference are compared with those of the exposure. `p_detector` and `p_optical_element` may list several values, separated by
`|`. `N/A`, `?` and missing entries match everything. The optical element of a file that CRDS selected is not compared, because CRDS
may select one file for several optical elements. `references.allow_mismatch: true`, or `--allow_mismatch` of a step, turns the
refusal into a warning. In the configuration this applies to the files of `references.override` only.

## Parameters of the steps

Names, units and defaults are romancal's. The last column has the name in romancal's pipeline, or says that only rampflow has the
parameter. [For users of romancal](../docs/from-romancal.md) lists romancal's other options.
"""  # noqa: E501


NUMBERS_HEAD = """\
# Numbers of an exposure

`RESULTS/STEM_qa.json` has these numbers of an exposure. `RESULTS/exposures.parquet` and `RESULTS/exposures.ecsv` have them of
all exposures, as columns with unit and description. A name of the archive is used where it has the quantity.
[Look at a survey](../how-to/survey.md) explains their use.

- The last column has what makes an exposure an outlier: the factor and the difference between its number and the median of like
  exposures that must both be exceeded.
- A number that is unknown is `null` in `STEM_qa.json`, and NaN in the tables. An unknown text is empty.
- The columns `association`, `state`, `failed_step`, `reason`, `outliers` and `outlier_text` are in the tables only.
- The configuration can limit every number that is not a text: [qa.limits](../../config/README.md#qalimits).
"""


def romancal_name(step: Step, parameter: Parameter) -> str:
    """Name a parameter as romancal's pipeline does.

    Parameters
    ----------
    step : Step
        Declaration of the step.
    parameter : Parameter
        A parameter of this step.

    Returns
    -------
    str
        Its name in Markdown, with that of the step in romancal; "rampflow only" where romancal does not have it.
    """
    if not parameter.in_romancal:
        return "rampflow only"
    return f"`{STEPS[step.name].romancal or step.name}.{parameter.name}`"


def as_yaml(value: object) -> str:
    """Write a value as the configuration file does.

    Parameters
    ----------
    value : object
        The value.

    Returns
    -------
    str
        Its YAML, in one line.
    """
    return yaml.safe_dump(value).splitlines()[0]


def accepted_values(parameter: Parameter) -> str:
    """Describe the values that a parameter accepts.

    Parameters
    ----------
    parameter : Parameter
        The parameter.

    Returns
    -------
    str
        Its choices or its type, and its minimum, in Markdown.
    """
    text = " or ".join(f"`{c}`" for c in parameter.choices) or parameter.type.__name__
    return text + (f" ≥ {parameter.minimum:g}" if parameter.minimum is not None else "")


def limits_text(low: float, high: float) -> str:
    """Write two limits in words.

    Parameters
    ----------
    low, high : float
        The limits.

    Returns
    -------
    str
        The text, ``0.5 to 20`` for example.
    """
    return f"{low:g} to {high:g}"


def limited_quantity(field: str, limits: Range) -> str:
    """Name the quantity that a range limits.

    Parameters
    ----------
    field : str
        Field of the reference that the range belongs to.
    limits : Range
        The range.

    Returns
    -------
    str
        The field with its plane, or the quantity that is derived from it, in Markdown.
    """
    field = f"`{field}`" if limits.plane is None else f"`{field}[{limits.plane}]`"
    return f"{limits.quantity} ({field})" if limits.quantity else field


def config_section(step: Step) -> str:
    """Write the section of a step in config.yaml.

    Parameters
    ----------
    step : Step
        Declaration of the step.

    Returns
    -------
    str
        Its parameters with their defaults, in YAML with comments.
    """
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
    """Write the section of a step in README.md.

    Parameters
    ----------
    step : Step
        Declaration of the step.

    Returns
    -------
    str
        Its references, plausible values and parameters, in Markdown.
    """
    lines = [f"\n### {step.name}\n", step.summary + "\n"]
    if step.references:
        lines += ["| reference | contents |", "|---|---|", *(f"| `{r.type}` | {r.meaning} |" for r in step.references), ""]
    if any(reference.plausible for reference in step.references):
        lines += [
            "Plausible values:\n",
            "| reference | field | values | median of a frame | unit | source |",
            "|---|---|---|---|---|---|",
        ]
        lines += [
            f"| `{reference.type}` | {limited_quantity(field, limits)} | {limits_text(limits.minimum, limits.maximum)} "
            f"| {limits_text(*limits.median) if limits.median else ''} | {limits.unit} | {limits.source} |"
            for reference in step.references
            for field, limits in reference.plausible.items()
        ]
        lines.append("")
    if parameters := configuration.parameters_of(step):
        lines += ["| parameter | accepts | default | unit | meaning | romancal |", "|---|---|---|---|---|---|"]
        for p in parameters:
            cells = f"`{p.name}`", accepted_values(p), f"`{as_yaml(p.default)}`", p.unit, p.meaning, romancal_name(step, p)
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def files_of_jobs() -> list[Path]:
    """List the files besides the rules that a run needs, for a workflow that takes the rules from a hosted repository.

    Returns
    -------
    list of pathlib.Path
        The files, sorted.
    """
    found = [
        *(path for path in SCRIPTS.rglob("*.py") if path.parent.name != "simulator"),
        *SCRIPTS.rglob("*.txt"),
        *(WORKFLOW / "schemas").iterdir(),
        *(WORKFLOW / "report").iterdir(),
    ]
    return sorted(path for path in found if path.is_file())


def documents() -> dict[Path, str]:
    """Generate all documents.

    Returns
    -------
    dict of pathlib.Path to str
        Content of each document by its path.
    """
    steps = declarations.steps().values()
    return {
        CONFIG / "config.yaml": HEAD + "\n".join(config_section(step) for step in steps),
        CONFIG / "README.md": README_HEAD + "".join(readme_section(step) for step in steps),
        CONFIG.parent / "docs" / "reference" / "numbers.md": NUMBERS_HEAD + as_markdown(),
        WORKFLOW / "files.txt": "".join(f"{path.relative_to(CONFIG.parent).as_posix()}\n" for path in files_of_jobs()),
    }


def main() -> int:
    """Write the documents."""
    for path, text in documents().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
