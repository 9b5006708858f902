"""From the raw exposure to the count-rate image: the steps that work on a ramp.

Steps with two threads set OPENBLAS_NUM_THREADS=1. Snakemake would give OpenBLAS two threads as well, which the steps do not use
and which take 0.1 s to start.
"""


rule dq_init:
    input:
        exposure=ancient(of_exposure(job_inputs.raw_exposure)),
        references=ancient(of_exposure(job_inputs.references, "dq_init")),
        redo=of_exposure(exposure_stamp, "dq_init"),
    output:
        exposure=exposure_after("dq_init"),
    log:
        "logs/{stem}/dq_init.log",
    benchmark:
        "benchmarks/{stem}/dq_init.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(90, frames=2, ramps=0.4),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "dq_init"),
        recipe=of_exposure(job_recipes.step_recipe, "dq_init"),
    message:
        "{wildcards.stem}: raw exposure to ramp with data-quality arrays"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/dq_init.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule saturation:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "saturation"),
        references=ancient(of_exposure(job_inputs.references, "saturation")),
        redo=of_exposure(exposure_stamp, "saturation"),
    output:
        exposure=exposure_after("saturation"),
    log:
        "logs/{stem}/saturation.log",
    benchmark:
        "benchmarks/{stem}/saturation.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1  # two are not faster: reading and writing takes most of the time
    resources:
        mem_mb=memory(100, frames=0.5, ramps=0.05),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "saturation"),
        recipe=of_exposure(job_recipes.step_recipe, "saturation"),
    message:
        "{wildcards.stem}: flag saturation"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/saturation.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


# With one arena of malloc, memory that one thread frees serves the other: 50 MB less.
rule refpix:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "refpix"),
        references=ancient(of_exposure(job_inputs.references, "refpix")),
        redo=of_exposure(exposure_stamp, "refpix"),
    output:
        exposure=exposure_after("refpix"),
    log:
        "logs/{stem}/refpix.log",
    benchmark:
        "benchmarks/{stem}/refpix.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: cores
    resources:
        mem_mb=memory(250, frames=11, ramps=0.05),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "refpix"),
        recipe=of_exposure(job_recipes.step_recipe, "refpix"),
    message:
        "{wildcards.stem}: reference-pixel correction"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 MALLOC_ARENA_MAX=1 python "$RAMPFLOW_SCRIPTS"/refpix.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule dark_decay:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "dark_decay"),
        references=ancient(of_exposure(job_inputs.references, "dark_decay")),
        redo=of_exposure(exposure_stamp, "dark_decay"),
    output:
        exposure=exposure_after("dark_decay"),
    log:
        "logs/{stem}/dark_decay.log",
    benchmark:
        "benchmarks/{stem}/dark_decay.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: cores
    resources:
        mem_mb=memory(60, frames=2.5, ramps=0.1),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "dark_decay"),
        recipe=of_exposure(job_recipes.step_recipe, "dark_decay"),
    message:
        "{wildcards.stem}: dark decay"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/dark_decay.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule wfi18_transient:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "wfi18_transient"),
        references=ancient(of_exposure(job_inputs.references, "wfi18_transient")),
        redo=of_exposure(exposure_stamp, "wfi18_transient"),
    output:
        exposure=exposure_after("wfi18_transient"),
    log:
        "logs/{stem}/wfi18_transient.log",
    benchmark:
        "benchmarks/{stem}/wfi18_transient.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: cores
    resources:
        mem_mb=memory(120, frames=4.5, ramps=0.05),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "wfi18_transient"),
        recipe=of_exposure(job_recipes.step_recipe, "wfi18_transient"),
    message:
        "{wildcards.stem}: first-read transient of WFI18"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/wfi18_transient.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule linearity:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "linearity"),
        references=ancient(of_exposure(job_inputs.references, "linearity")),
        redo=of_exposure(exposure_stamp, "linearity"),
    output:
        exposure=exposure_after("linearity"),
    log:
        "logs/{stem}/linearity.log",
    benchmark:
        "benchmarks/{stem}/linearity.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: cores
    resources:
        mem_mb=memory(480, frames=2),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "linearity"),
        recipe=of_exposure(job_recipes.step_recipe, "linearity"),
    message:
        "{wildcards.stem}: linearity"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/linearity.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule ramp_fitting:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "ramp_fitting"),
        references=ancient(of_exposure(job_inputs.references, "ramp_fitting")),
        redo=of_exposure(exposure_stamp, "ramp_fitting"),
    output:
        exposure=exposure_after("ramp_fitting"),
    log:
        "logs/{stem}/ramp_fitting.log",
    benchmark:
        "benchmarks/{stem}/ramp_fitting.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: cores
    resources:
        mem_mb=memory(240, frames=6, ramps=0.05, more_ramps=ramps_for_large_events),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=of_exposure(job_arguments.step_arguments, "ramp_fitting"),
        recipe=of_exposure(job_recipes.step_recipe, "ramp_fitting"),
    message:
        "{wildcards.stem}: ramp fit"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/ramp_fitting.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'
