"""Products on S3, where `results` is an address there: those of an exposure or an association are brought there together.

They run where Snakemake runs: the nodes of a cluster may have no network. At most as many at the same time as
--resources transfers=N says.
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
            'python "$RAMPFLOW_SCRIPTS"/upload_products.py {output.receipt:q} {input.products:q} --to {params.address:q} > {log:q} 2>&1'
