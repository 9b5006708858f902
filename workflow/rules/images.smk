"""From the count-rate image to the calibrated one."""


rule dark_current:
    input:
        exposure=exposure_before("dark_current"),
        references=references_of("dark_current"),
    output:
        exposure=intermediate("dark_current"),
    log:
        "logs/{stem}/dark_current.log",
    benchmark:
        "benchmarks/{stem}/dark_current.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(90, frames=0.5),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("dark_current"),
        recipe=recipe_of("dark_current"),
    message:
        "{wildcards.stem}: dark current"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/dark_current.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule assign_wcs:
    input:
        exposure=exposure_before("assign_wcs"),
        references=references_of("assign_wcs"),
    output:
        exposure=intermediate("assign_wcs"),
    log:
        "logs/{stem}/assign_wcs.log",
    benchmark:
        "benchmarks/{stem}/assign_wcs.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(200),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("assign_wcs"),
        recipe=recipe_of("assign_wcs"),
    message:
        "{wildcards.stem}: world coordinate system"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/assign_wcs.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule photom:
    input:
        exposure=exposure_before("photom"),
        references=references_of("photom"),
    output:
        exposure=intermediate("photom"),
    log:
        "logs/{stem}/photom.log",
    benchmark:
        "benchmarks/{stem}/photom.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(60, ramps=0.05),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("photom"),
        recipe=recipe_of("photom"),
    message:
        "{wildcards.stem}: photometric calibration"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/photom.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule flatfield:
    input:
        exposure=exposure_before("flatfield"),
        references=references_of("flatfield"),
    output:
        exposure=intermediate("flatfield"),
    log:
        "logs/{stem}/flatfield.log",
    benchmark:
        "benchmarks/{stem}/flatfield.tsv"
    group:
        "exposure"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(90, frames=0.5),
        runtime=minutes(5, per_gigabyte=5),
    params:
        options=options_of("flatfield"),
        recipe=recipe_of("flatfield"),
    message:
        "{wildcards.stem}: flat field"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/flatfield.py {input.exposure:q} {output.exposure:q}'
        ' {params.options} --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'
