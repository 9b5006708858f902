"""Pictures of the exposures, and the pages that show them: the reports of the associations, and the survey."""

import json

# Templates of the pages of associations and exposures.
REPORT_TEMPLATES = sorted(
    path
    for pattern in ("*.css", "overview*", "picture.*", "report.*", "exposure.*.j2")
    for path in (WORKFLOW / "report").glob(pattern)
)


localrules:
    report,
    survey,


rule report:
    input:
        get_final_products,
        expand(
            f"{RESULTS}/{{association}}_report.html",
            association=plan.associations(),
        ),


# The page needs no product: it shows failed exposures, too.
rule survey:
    input:
        need_results,
    log:
        "logs/survey.log",
    conda:
        "../../envs/rampflow.yaml"
    params:
        results=RESULTS,
        page=f"{RESULTS}/survey.html",
        limits=json.dumps(settings["qa"]["limits"]),
    message:
        "page of the exposures in {params.results}: {params.page}"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/survey.py {params.results:q} {params.page:q} --limits {params.limits:q} > {log:q} 2>&1'


# This rule reads temporary files. A report that is made together with the products costs little; one that is made later repeats
# the steps that write these files.
rule ramp_pictures:
    input:
        ramp=of_exposure(job_inputs.exposure_before, "ramp_fitting"),
        image=plan.paths.exposure("{stem}", "ramp_fitting"),
        refpix=of_exposure(report_inputs.ramps_around_refpix),
        transient=of_exposure(report_inputs.ramp_with_transient),
    output:
        f"{INTERMEDIATES}/{{stem}}_ramp_pictures.json",
    log:
        "logs/{stem}/ramp_pictures.log",
    benchmark:
        "benchmarks/{stem}/ramp_pictures.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(400, frames=16),
        runtime=minutes(10),
    params:
        options=options_of_inputs("refpix", "transient"),
        code=fingerprint("ramp_pictures"),
    message:
        "{wildcards.stem}: pictures of the ramps"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/ramp_pictures.py {output:q} --ramp {input.ramp:q} --image {input.image:q} {params.options}'
        " > {log:q} 2>&1"


rule image_pictures:
    input:
        unpack(of_exposure(report_inputs.catalog_files)),
        image=f"{RESULTS}/{{stem}}_cal.asdf",
        preview=f"{RESULTS}/{{stem}}_cal.png",
    output:
        f"{INTERMEDIATES}/{{stem}}_image_pictures.json",
    log:
        "logs/{stem}/image_pictures.log",
    benchmark:
        "benchmarks/{stem}/image_pictures.tsv"
    group:
        "finalize"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(500, frames=8),
        runtime=minutes(10),
    params:
        options=options_of_inputs("catalog", "segmentation", "unaligned", "stars"),
        code=fingerprint("image_pictures"),
    message:
        "{wildcards.stem}: pictures of the products"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/image_pictures.py {output:q} --image {input.image:q} --preview {input.preview:q}'
        " {params.options} > {log:q} 2>&1"


rule association_report:
    input:
        unpack(of_association(report_inputs.alignment_files)),
        images=lambda wildcards: expand(
            f"{INTERMEDIATES}/{{stem}}_image_pictures.json",
            stem=plan.members(wildcards.association),
        ),
        ramps=of_association(report_inputs.made_ramp_pictures),
        templates=REPORT_TEMPLATES,
    output:
        page=report(
            f"{RESULTS}/{{association}}_report.html",
            caption="../report/association.rst",
            category="Associations",
            labels={"association": "{association}"},
        ),
        exposures=report(
            directory(f"{RESULTS}/{{association}}_report"),
            patterns=["{exposure}.html"],
            caption="../report/exposure.rst",
            category="Exposures",
            labels={"exposure": "{exposure}"},
        ),
    log:
        "logs/{association}/report.log",
    benchmark:
        "benchmarks/{association}/report.tsv"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(10),
    params:
        images=list_of_inputs("images"),
        ramps=lambda wildcards: write_list(report_inputs.ramp_pictures(wildcards.association)),
        options=options_of_inputs("summary", "stars"),
        missing=of_association(job_arguments.missing_options, second_pass.left_out()),
        limits=json.dumps(settings["qa"]["limits"]),
        code=fingerprint("report"),
    message:
        "{wildcards.association}: report"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/report.py {output.page:q} --images {params.images} --ramps {params.ramps} {params.options}'
        " {params.missing} --limits {params.limits:q} --benchmarks benchmarks --logs logs > {log:q} 2>&1"
