"""The final products of each exposure, and the removal of files of other runs."""

import json


# finalize writes the products of an exposure with a source catalog, finalize_image those of others.
rule finalize:
    input:
        image=ancient_links(of_exposure(job_inputs.calibrated_image)),
        catalog=ancient_links(of_exposure(job_inputs.own_catalog)),
        segmentation=ancient_links(of_exposure(job_inputs.own_segmentation)),
        solutions=of_exposure(job_inputs.solution),
        redo=of_exposure(exposure_stamp, rerun.FINALIZE),
    output:
        cal=f"{RESULTS}/{{stem}}_cal.asdf",
        wcs=f"{RESULTS}/{{stem}}_wcs.asdf",
        qa=f"{RESULTS}/{{stem}}_qa.json",
        preview=report(
            f"{RESULTS}/{{stem}}_cal.png",
            caption="../report/preview.rst",
            category="Calibrated images",
            labels={"exposure": "{stem}"},
        ),
        thumbnail=f"{RESULTS}/{{stem}}_cal_thumb.png",
        cat=f"{RESULTS}/{{stem}}_cat.parquet",
        segm=f"{RESULTS}/{{stem}}_segm.asdf",
    log:
        "logs/{stem}/finalize.log",
    benchmark:
        "benchmarks/{stem}/finalize.tsv"
    wildcard_constraints:
        stem=match_any(plan.cataloged()),
    group:
        "finalize"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(150, frames=8),
        runtime=minutes(5, per_gigabyte=5),
    params:
        solutions=options_of_inputs("solutions"),
        options=of_exposure(job_arguments.product_options),
        recipe=of_exposure(job_recipes.product_recipe),
    message:
        "{wildcards.stem}: products"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/finalize.py {input.image:q} {output.cal:q} {output.wcs:q}'
        " --preview {output.preview:q} {output.thumbnail:q} --qa {output.qa:q} --benchmarks benchmarks/{wildcards.stem:q}"
        " {params.solutions} {params.options} --catalog {input.catalog:q} {output.cat:q}"
        " --segmentation {input.segmentation:q} {output.segm:q} > {log:q} 2>&1"


rule finalize_image:
    input:
        image=of_exposure(job_inputs.calibrated_image),
        redo=of_exposure(exposure_stamp, rerun.FINALIZE),
    output:
        cal=f"{RESULTS}/{{stem}}_cal.asdf",
        wcs=f"{RESULTS}/{{stem}}_wcs.asdf",
        qa=f"{RESULTS}/{{stem}}_qa.json",
        preview=report(
            f"{RESULTS}/{{stem}}_cal.png",
            caption="../report/preview.rst",
            category="Calibrated images",
            labels={"exposure": "{stem}"},
        ),
        thumbnail=f"{RESULTS}/{{stem}}_cal_thumb.png",
    log:
        "logs/{stem}/finalize.log",
    benchmark:
        "benchmarks/{stem}/finalize.tsv"
    wildcard_constraints:
        stem=match_any(plan.cataloged(yes=False)),
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(150, frames=8),
        runtime=minutes(5, per_gigabyte=5),
    params:
        recipe=fingerprint("finalize"),
    message:
        "{wildcards.stem}: products"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/finalize.py {input.image:q} {output.cal:q} {output.wcs:q}'
        " --preview {output.preview:q} {output.thumbnail:q} --qa {output.qa:q} --benchmarks benchmarks/{wildcards.stem:q}"
        " > {log:q} 2>&1"


localrules:
    affected,
    exposures,
    remove_stale,


# This rule runs nothing: what a run would make again is found before the first job (messages.smk).
rule affected:
    params:
        table=f"{RESULTS}/affected.ecsv",
    message:
        "what a run would make again: {params.table}"


# Every run updates the table at its end. This target updates it when there is nothing else to do.
rule exposures:
    input:
        need_results,
    log:
        "logs/exposures.log",
    conda:
        "../../envs/rampflow.yaml"
    params:
        results=RESULTS,
        limits=json.dumps(settings["qa"]["limits"]),
    message:
        "table of the exposures in {params.results}"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/exposure_table.py {params.results:q} --limits {params.limits:q} > {log:q} 2>&1'


# No other rule needs it. With --dry-run it lists what it would remove.
rule remove_stale:
    input:
        need_results_and_exposures,
    log:
        "logs/remove_stale.log",
    conda:
        "../../envs/rampflow.yaml"
    params:
        results=RESULTS,
        exposures=plan.exposures_file,
        stale=lambda wildcards: "\n".join(map(str, plan.stale_files())) or "nothing",
    message:
        "remove files of exposures and steps that this run does not have:\n{params.stale}"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/remove_stale.py {params.results:q} {params.exposures:q} > {log:q} 2>&1'
