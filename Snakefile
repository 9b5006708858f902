"""Includes workflow/Snakefile, so that `snakemake` finds the workflow in the folder of the clone."""


include: "workflow/Snakefile"


localrules:
    default,


# Snakemake takes its default target from the main file only, not from what it includes.
rule default:
    default_target: True
    input:
        rules.all.input,
