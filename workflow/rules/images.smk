"""From the count-rate image to the calibrated image."""


rule dark_current:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "dark_current"),
        references=ancient(of_exposure(job_inputs.references, "dark_current")),
        redo=of_exposure(exposure_stamp, "dark_current"),
    output:
        exposure=exposure_after("dark_current"),
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
        options=of_exposure(job_arguments.step_arguments, "dark_current"),
        recipe=of_exposure(job_recipes.step_recipe, "dark_current"),
    message:
        "{wildcards.stem}: dark current"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/dark_current.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule assign_wcs:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "assign_wcs"),
        references=ancient(of_exposure(job_inputs.references, "assign_wcs")),
        redo=of_exposure(exposure_stamp, "assign_wcs"),
    output:
        exposure=exposure_after("assign_wcs"),
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
        options=of_exposure(job_arguments.step_arguments, "assign_wcs"),
        recipe=of_exposure(job_recipes.step_recipe, "assign_wcs"),
    message:
        "{wildcards.stem}: world coordinate system"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/assign_wcs.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule photom:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "photom"),
        references=ancient(of_exposure(job_inputs.references, "photom")),
        redo=of_exposure(exposure_stamp, "photom"),
    output:
        exposure=exposure_after("photom"),
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
        options=of_exposure(job_arguments.step_arguments, "photom"),
        recipe=of_exposure(job_recipes.step_recipe, "photom"),
    message:
        "{wildcards.stem}: photometric calibration"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/photom.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'


rule flatfield:
    input:
        exposure=of_exposure(job_inputs.exposure_before, "flatfield"),
        references=ancient(of_exposure(job_inputs.references, "flatfield")),
        redo=of_exposure(exposure_stamp, "flatfield"),
    output:
        exposure=exposure_after("flatfield"),
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
        options=of_exposure(job_arguments.step_arguments, "flatfield"),
        recipe=of_exposure(job_recipes.step_recipe, "flatfield"),
    message:
        "{wildcards.stem}: flat field"
    shell:
        'RAMPFLOW_RECIPE={params.recipe} python "$RAMPFLOW_SCRIPTS"/flatfield.py'
        " {input.exposure:q} {output.exposure:q} {params.options}"
        ' --crds_context "$RAMPFLOW_CONTEXT" --threads {threads} > {log:q} 2>&1'
