"""References that the CRDS cache lacks: each is fetched once.

The output is the link to a reference. The files in the cache are not outputs of a rule, so that Snakemake never deletes them.
"""

from rampflow.files import links

MISSING_REFERENCES = [plan.links[path] for path in plan.inventory.missing_references()]

if MISSING_REFERENCES:

    localrules:
        fetch_reference,

    rule fetch_reference:
        output:
            # `update` keeps the link that exists: another run may have fetched the reference meanwhile, and be reading it.
            update(f"{links.FOLDER}/{{content}}/{{reference}}"),
        log:
            "logs/{content}/{reference}/fetch_reference.log",
        wildcard_constraints:
            content=match_any({Path(link).parent.name for link in MISSING_REFERENCES}),
            reference=match_any({Path(link).name for link in MISSING_REFERENCES}),
        conda:
            "../../envs/rampflow.yaml"
        resources:
            mem_mb=memory(500),
            runtime=minutes(60),
        params:
            context=plan.inventory.context,
        message:
            "fetch {wildcards.reference}"
        shell:
            'python "$RAMPFLOW_SCRIPTS"/fetch_reference.py {output:q} --crds_context {params.context:q} > {log:q} 2>&1'
