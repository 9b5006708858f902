# References that are not in the CRDS cache yet are fetched once, by this rule. Those that are there are plain inputs: no
# rule makes them, so nothing here can ever delete or rewrite them.
MISSING_REFERENCES = visit.missing_references()

if MISSING_REFERENCES:

    localrules:
        fetch_reference,

    rule fetch_reference:
        output:
            # Not removed before the job starts: another run may have brought it meanwhile, and be reading it.
            update("{reference}"),
        log:
            "logs/fetch_reference/{reference}.log",
        wildcard_constraints:
            reference="|".join(re.escape(path) for path in MISSING_REFERENCES),
        conda:
            "../../envs/rampflow.yaml"
        resources:
            mem_mb=memory(500),
            runtime=minutes(60),
        params:
            context=visit.context,
        message:
            "fetch {wildcards.reference}"
        shell:
            'python "$RAMPFLOW_SCRIPTS"/fetch_reference.py {output:q} --crds_context {params.context:q} > {log:q} 2>&1'
