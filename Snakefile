"""rampflow: exposure-level processing of the Roman Wide Field Instrument.

Raw ramps (_uncal.asdf) in; calibrated images (_cal), source catalogs (_cat), segmentation maps (_segm) and WCS products (_wcs)
out:

    snakemake --cores 8 --config input=L1_asn.json results=results
"""

from snakemake.utils import min_version

min_version("9.0")


configfile: f"{workflow.current_basedir}/config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/references.smk"
include: "workflow/rules/ramps.smk"
include: "workflow/rules/images.smk"
include: "workflow/rules/catalogs.smk"
include: "workflow/rules/products.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/messages.smk"


localrules:
    all,


rule all:
    default_target: True
    input:
        get_final_products,
