"""From the raw exposure to the count-rate image: the steps that work on a ramp.

Snakemake gives OpenBLAS as many threads as a rule has. The steps have no use for them, and starting them costs a tenth of a
second: OPENBLAS_NUM_THREADS.
"""


rule dq_init:
    input:
        exposure=ancient(get_raw_exposure),
        references=references_of("dq_init"),
        redo=lambda wildcards: redo_stamp("exposure", wildcards.stem),
    output:
        exposure=intermediate("dq_init"),
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
        mem_mb=memory(90, frames=2, ramps=1.4),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("dq_init"),
        recipe=recipe_of("dq_init"),
    message:
        "{wildcards.stem}: raw exposure to ramp with data-quality arrays"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/dq_init.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule saturation:
    input:
        exposure=exposure_before("saturation"),
        references=references_of("saturation"),
    output:
        exposure=intermediate("saturation"),
    log:
        "logs/{stem}/saturation.log",
    benchmark:
        "benchmarks/{stem}/saturation.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1  # two take as long: most of it is the kernel's reading and writing
    resources:
        mem_mb=memory(100, frames=0.5, ramps=0.05),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("saturation"),
        recipe=recipe_of("saturation"),
    message:
        "{wildcards.stem}: flag saturation"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/saturation.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule refpix:
    input:
        exposure=exposure_before("refpix"),
        references=references_of("refpix"),
    output:
        exposure=intermediate("refpix"),
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
        options=options_of("refpix"),
        recipe=recipe_of("refpix"),
    message:
        "{wildcards.stem}: reference-pixel correction"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/refpix.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule dark_decay:
    input:
        exposure=exposure_before("dark_decay"),
        references=references_of("dark_decay"),
    output:
        exposure=intermediate("dark_decay"),
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
        options=options_of("dark_decay"),
        recipe=recipe_of("dark_decay"),
    message:
        "{wildcards.stem}: dark decay"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/dark_decay.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule wfi18_transient:
    input:
        exposure=exposure_before("wfi18_transient"),
        references=references_of("wfi18_transient"),
    output:
        exposure=intermediate("wfi18_transient"),
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
        options=options_of("wfi18_transient"),
        recipe=recipe_of("wfi18_transient"),
    message:
        "{wildcards.stem}: first-read transient of WFI18"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/wfi18_transient.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule linearity:
    input:
        exposure=exposure_before("linearity"),
        references=references_of("linearity"),
    output:
        exposure=intermediate("linearity"),
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
        mem_mb=memory(450, frames=2),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("linearity"),
        recipe=recipe_of("linearity"),
    message:
        "{wildcards.stem}: linearity"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/linearity.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule ramp_fitting:
    input:
        exposure=exposure_before("ramp_fitting"),
        references=references_of("ramp_fitting"),
    output:
        exposure=intermediate("ramp_fitting"),
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
        mem_mb=memory(240, frames=6, ramps=0.05),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("ramp_fitting"),
        recipe=recipe_of("ramp_fitting"),
    message:
        "{wildcards.stem}: ramp fit"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} OPENBLAS_NUM_THREADS=1 python "$RAMPFLOW_SCRIPTS"/ramp_fitting.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'
