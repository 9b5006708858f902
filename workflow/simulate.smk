"""The demonstration's exposures, made before the pipeline starts: it reads its inputs' headers to know its jobs.

snakemake --snakefile workflow/simulate.smk --configfile config/demo.yaml --cores 2
"""

import json
import shlex
import sys
from pathlib import Path

PYTHON = shlex.quote(sys.executable)
SCRIPTS = Path(workflow.basedir).parent / "scripts"
DEMO = config["demo"]
FOLDER = "demo"


def stem_of(number, exposure):
    """Name of the exposure of this number in the visit."""
    return f"r0000101001001001001_{number:04d}_{exposure['detector']}_{exposure['optical-element']}".lower()


EXPOSURES = {
    stem_of(n, exposure): {"exposure": n} | exposure
    for n, exposure in enumerate(DEMO["exposures"], start=1)
}


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
    return options(
        {"seed": 1000 * DEMO["seed"] + exposure["exposure"]} | DEMO["common"] | exposure
    )


wildcard_constraints:
    stem="|".join(EXPOSURES),


localrules:
    visit,


rule visit:
    default_target: True
    input:
        exposures=expand(f"{FOLDER}/{{stem}}_uncal.asdf", stem=EXPOSURES),
    output:
        association=f"{FOLDER}/visit_asn.json",
    message:
        "Association of the visit"
    run:
        members = [
            {"expname": Path(name).name, "exptype": "science"}
            for name in input.exposures
        ]
        association = {
            "asn_type": "visit",
            "asn_rule": "visit",
            "program": "00001",
            "products": [{"name": "visit", "members": members}],
        }
        Path(output.association).write_text(
            json.dumps(association, indent=2) + "\n"
        )


rule simulate_references:
    input:
        script=SCRIPTS / "simulate_references.py",
    output:
        cache=directory(f"{FOLDER}/crds_cache"),
    log:
        "logs/simulate/references.log",
    benchmark:
        "benchmarks/simulate/references.tsv"
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
        "{PYTHON} {input.script:q} {output.cache:q} {params.options} > {log:q} 2>&1"


rule simulate_sky:
    input:
        script=SCRIPTS / "simulate_sky.py",
    output:
        sky=f"{FOLDER}/sky.ecsv",
        astrometric=f"{FOLDER}/astrometric.ecsv",
    log:
        "logs/simulate/sky.log",
    benchmark:
        "benchmarks/simulate/sky.tsv"
    threads: 1
    resources:
        mem_mb=500,
        runtime=10,
    params:
        options=options({"seed": DEMO["seed"]} | DEMO["sky"]),
    message:
        "Simulated stars and galaxies"
    shell:
        "{PYTHON} {input.script:q} {output.sky:q} --astrometric {output.astrometric:q} {params.options} > {log:q} 2>&1"


rule simulate_exposure:
    input:
        script=SCRIPTS / "simulate_exposure.py",
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
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        options=exposure_options,
    message:
        "{wildcards.stem}: simulated raw exposure"
    shell:
        "{PYTHON} {input.script:q} {output.exposure:q} --truth {output.truth:q} --sky {input.sky:q} --cache {input.cache:q}"
        " {params.options} --threads {threads} > {log:q} 2>&1"
