"""Catalogs of the calibrated images, and the alignment of all exposures of an association."""


rule source_catalog:
    input:
        exposure=ancient_links(of_exposure(job_inputs.exposure_before, "source_catalog")),
        references=ancient(of_exposure(job_inputs.references, "source_catalog")),
        forced_segmentation=ancient(of_exposure(job_inputs.forced_segmentation)),
        redo=of_exposure(exposure_stamp, "source_catalog"),
    output:
        catalog=f"{INTERMEDIATES}/{of_single_steps('source_catalog')}_cat.parquet",
        segmentation=f"{INTERMEDIATES}/{of_single_steps('source_catalog')}_segm.asdf",
    log:
        "logs/{stem}/source_catalog.log",
    benchmark:
        "benchmarks/{stem}/source_catalog.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: cores
    resources:
        mem_mb=memory(500, frames=14),
        runtime=minutes(20),
    params:
        options=of_exposure(job_arguments.step_arguments, "source_catalog"),
        recipe=of_exposure(job_recipes.step_recipe, "source_catalog"),
    message:
        "{wildcards.stem}: source catalog and segmentation map"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/source_catalog.py'
        " {input.exposure:q} {output.catalog:q} {output.segmentation:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


# astrometric_catalog may need a network, so it runs on the machine where Snakemake runs.
localrules:
    astrometric_catalog,


rule astrometric_catalog:
    input:
        images=ancient_pointings(of_association(job_inputs.images_to_align)),
        source=ancient(lambda wildcards: job_inputs.star_file()),
        redo=of_association(association_stamp),
    output:
        stars=f"{INTERMEDIATES}/{{association}}_astrometric.parquet",
    log:
        "logs/{association}/astrometric_catalog.log",
    benchmark:
        "benchmarks/{association}/astrometric_catalog.tsv"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=minutes(30),
    params:
        images=list_of_inputs("images"),
        source=lambda wildcards: job_inputs.star_source(),
        attempt=of_association(job_arguments.star_attempt),
        options=of_association(job_arguments.search_parameters),
        code=fingerprint("astrometric_catalog"),
    message:
        "{wildcards.association}: astrometric catalog"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/astrometric_catalog.py {output.stars:q} --images {params.images}'
        " --astrometric_catalog {params.source:q} --attempt {params.attempt} {params.options} > {log:q} 2>&1"


rule tweakreg:
    input:
        images=ancient_links(of_association(job_inputs.images_to_align)),
        catalogs=ancient_links(of_association(job_inputs.catalogs_to_align)),
        own_catalogs=ancient_links(of_association(job_inputs.made_catalogs)),
        stars=rules.astrometric_catalog.output.stars,
    output:
        solutions=f"{INTERMEDIATES}/{{association}}_tweakreg.asdf",
        summary=f"{RESULTS}/{{association}}_tweakreg.json",
    log:
        "logs/{association}/tweakreg.log",
    benchmark:
        "benchmarks/{association}/tweakreg.tsv"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_members(1000, per_member=1.5, members=plan.members_to_align),
        runtime=minutes(30),
    params:
        images=list_of_inputs("images"),
        catalogs=list_of_inputs("catalogs"),
        own_catalogs=list_of_inputs("own_catalogs"),
        name=Path(settings["astrometric_catalog"]).name,
        options=of_association(job_arguments.alignment_parameters),
        recipe=of_association(job_recipes.association_recipe),
    message:
        "{wildcards.association}: alignment of all exposures"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/tweakreg.py {output.solutions:q} {output.summary:q}'
        " --images {params.images} --catalogs {params.catalogs} --own_catalogs {params.own_catalogs}"
        " --astrometric_catalog {input.stars:q} --catalog_name {params.name:q} {params.options} > {log:q} 2>&1"
