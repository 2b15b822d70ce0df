"""From pairs of H&E and IHC slides to a dataset, trained virtual stains and a report."""

# A file given with --configfile stands alone: it is not mixed with the demo's data sets.
if "datasets" not in config:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/common_runs.smk"
include: "workflow/rules/synth.smk"
include: "workflow/rules/slides.smk"
include: "workflow/rules/registration.smk"
include: "workflow/rules/tissue.smk"
include: "workflow/rules/stains.smk"
include: "workflow/rules/tiling.smk"
include: "workflow/rules/quality.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/inference.smk"
include: "workflow/rules/evaluation.smk"
include: "workflow/rules/report.smk"


rule all:
    """Everything: all data sets, all runs, and the report on them."""
    default_target: True
    input:
        "results/report.html",


rule datasets:
    """The data sets alone, without training."""
    input:
        expand("results/{dataset}/index.parquet", dataset=CONFIG.datasets),


onstart:
    record_start()


onerror:
    explain_failure(log)
