"""The demonstration's exposures, made before the pipeline starts: it reads its inputs' headers to know its jobs.

snakemake --snakefile workflow/simulate.smk --configfile config/demo.yaml --cores 2
"""

import inspect
import os
import shlex
import sys
from pathlib import Path

SCRIPTS = Path(inspect.getfile(lambda: None)).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from rampflow.workflow.environment import script_environment

os.environ.update(script_environment(None))
DEMO = config["demo"]
FOLDER = "demo"


def stem_of(number, exposure):
    """Name of the exposure of this number in the visit."""
    return f"r0000101001001001001_{number:04d}_{exposure['detector']}_{exposure['optical-element']}".lower()


EXPOSURES = {stem_of(n, exposure): {"exposure": n} | exposure for n, exposure in enumerate(DEMO["exposures"], start=1)}


def options(settings):
    """Settings as arguments of a script: a list is several values, true is an option without one."""
    words = []
    for name, value in settings.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        words += [f"--{name}", *map(str, values)]
    return shlex.join(words)


def exposure_options(wildcards):
    """Arguments of simulate_exposure; each exposure has random numbers of its own."""
    exposure = EXPOSURES[wildcards.stem]
    return options({"seed": 1000 * DEMO["seed"] + exposure["exposure"]} | DEMO["common"] | exposure)


wildcard_constraints:
    stem="|".join(EXPOSURES),


localrules:
    visit,


rule visit:
    default_target: True
    input:
        script=SCRIPTS / "make_association.py",
        exposures=expand(f"{FOLDER}/{{stem}}_uncal.asdf", stem=EXPOSURES),
    output:
        association=f"{FOLDER}/visit_asn.json",
    log:
        "logs/simulate/visit.log",
    conda:
        "../envs/rampflow.yaml"
    message:
        "Association of the visit"
    shell:
        "python {input.script:q} {output.association:q} {input.exposures:q} > {log:q} 2>&1"


rule simulate_references:
    input:
        script=SCRIPTS / "simulator" / "simulate_references.py",
    output:
        cache=directory(f"{FOLDER}/crds_cache"),
    log:
        "logs/simulate/references.log",
    benchmark:
        "benchmarks/simulate/references.tsv"
    conda:
        "../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=options(
            {
                "detectors": ",".join(DEMO["detectors"]),
                "size": DEMO["size"],
                "seed": DEMO["seed"],
            }
        ),
    message:
        "Simulated references in a CRDS cache"
    shell:
        "python {input.script:q} {output.cache:q} {params.options} > {log:q} 2>&1"


rule simulate_sky:
    input:
        script=SCRIPTS / "simulator" / "simulate_sky.py",
    output:
        sky=f"{FOLDER}/sky.ecsv",
        astrometric=f"{FOLDER}/astrometric.ecsv",
    log:
        "logs/simulate/sky.log",
    benchmark:
        "benchmarks/simulate/sky.tsv"
    conda:
        "../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        options=options({"seed": DEMO["seed"]} | DEMO["sky"]),
    message:
        "Simulated stars and galaxies"
    shell:
        "python {input.script:q} {output.sky:q} --astrometric {output.astrometric:q} {params.options} > {log:q} 2>&1"


rule simulate_exposure:
    input:
        script=SCRIPTS / "simulator" / "simulate_exposure.py",
        cache=rules.simulate_references.output.cache,
        sky=rules.simulate_sky.output.sky,
    output:
        exposure=f"{FOLDER}/{{stem}}_uncal.asdf",
        truth=f"{FOLDER}/{{stem}}_truth.asdf",
        sources=f"{FOLDER}/{{stem}}_truth.ecsv",
    log:
        "logs/simulate/{stem}.log",
    benchmark:
        "benchmarks/simulate/{stem}.tsv"
    conda:
        "../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        options=exposure_options,
    message:
        "{wildcards.stem}: simulated raw exposure"
    shell:
        "python {input.script:q} {output.exposure:q} --truth {output.truth:q} --sky {input.sky:q} --cache {input.cache:q}"
        " {params.options} --threads {threads} > {log:q} 2>&1"
