"""The workflow is workflow/Snakefile; this one is found where Snakemake starts in the clone."""


include: "workflow/Snakefile"
