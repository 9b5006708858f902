"""Upload of the products, if `results` is an address on S3: the products of an exposure or an association in one job.

The jobs run where Snakemake runs, because the nodes of a cluster may have no network. --resources transfers=N sets how many run
at the same time.
"""

UPLOADED = uploads.names()

if UPLOADED:

    localrules:
        upload_products,

    rule upload_products:
        input:
            products=lambda wildcards: uploads.products(wildcards.name),
        output:
            receipt=uploads.receipt("{name}"),
        log:
            "logs/{name}/upload_products.log",
        benchmark:
            "benchmarks/{name}/upload_products.tsv"
        wildcard_constraints:
            name=match_any(UPLOADED),
        conda:
            "../../envs/rampflow.yaml"
        threads: 1
        resources:
            mem_mb=memory(200),
            runtime=minutes(30),
            transfers=1,
        params:
            address=uploads.address,
        message:
            "{wildcards.name}: products to {params.address}"
        shell:
            'python "$RAMPFLOW_SCRIPTS"/upload_products.py {output.receipt:q} {input.products:q} --to {params.address:q}'
            " > {log:q} 2>&1"
