"""The final products of each exposure."""


rule finalize:
    input:
        image=get_calibrated_image,
    output:
        cal=f"{RESULTS}/{{stem}}_cal.asdf",
        wcs=f"{RESULTS}/{{stem}}_wcs.asdf",
    log:
        "logs/{stem}/finalize.log",
    benchmark:
        "benchmarks/{stem}/finalize.tsv"
    conda:
        "../../envs/rampflow.yaml"
    threads: 1
    resources:
        mem_mb=memory(600, frames=10),
        runtime=10,
    params:
        code=pipeline.fingerprint("finalize"),
    message:
        "{wildcards.stem}: products"
    shell:
        'python "$RAMPFLOW_SCRIPTS"/finalize.py {input.image:q} {output.cal:q} {output.wcs:q} > {log:q} 2>&1'
