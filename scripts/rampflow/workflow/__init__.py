"""What Snakemake needs before the first job and after the last one. No step imports this package."""
