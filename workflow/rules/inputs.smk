"""Raw exposures on S3 or web servers: each is fetched before its first step, and removed after it.

--resources transfers=N sets how many are fetched at the same time; the default profile sets 4.
"""

REMOTE_EXPOSURES = plan.remote_exposures()

if REMOTE_EXPOSURES:

    rule fetch_exposure:
        output:
            exposure=temp(plan.paths.fetched("{stem}")),
        log:
            "logs/{stem}/fetch_exposure.log",
        benchmark:
            "benchmarks/{stem}/fetch_exposure.tsv"
        wildcard_constraints:
            stem=match_any(REMOTE_EXPOSURES),
        group:
            "exposure"
        conda:
            "../../envs/rampflow.yaml"
        threads: 1
        resources:
            mem_mb=memory(150),
            runtime=minutes(30, per_gigabyte=10),
            transfers=1,
        params:
            content=of_exposure(job_inputs.raw_content),  # not the address: the same file at another place repeats nothing
        message:
            "{wildcards.stem}: fetch the raw exposure"
        shell:
            'python "$RAMPFLOW_SCRIPTS"/fetch_exposure.py {wildcards.stem:q} {output.exposure:q}'
            ' --exposures "$RAMPFLOW_EXPOSURES" > {log:q} 2>&1'
