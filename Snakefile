"""The workflow is workflow/Snakefile. This file is for `snakemake` in the clone, and for those who name it."""


include: "workflow/Snakefile"


localrules:
    default,


# Snakemake takes its default target from this file alone, not from what it includes.
rule default:
    default_target: True
    input:
        rules.all.input,
