rule picture_case:
    """Draw what a person wants to see of one case: both slides, their registration, tissue and grid."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
        transform="results/{dataset}/registered/{case}.zarr",
        tissue="results/{dataset}/tissue/{case}.zarr",
        index="results/{dataset}/tiles/{case}.parquet",
        verdict="results/{dataset}/verdict/{case}.parquet",
    output:
        directory("results/{dataset}/pictures/{case}"),
    log:
        "results/private/logs/picture_case/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/picture_case/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=3000,
    params:
        pair=pair_options,
    shell:
        "hepipe picture {params.pair} --checked {input.checked} --transform {input.transform}"
        " --tissue {input.tissue} --index {input.index} --verdict {input.verdict} --pictures {output} > {log} 2>&1"


rule report:
    """One page on all data sets, cases and runs."""
    input:
        indices=all_indices,
        scores=all_scores,
        reviews=all_reviews,
    output:
        page="results/report.html",
        status="results/status.tsv",
        tables=directory("results/tables"),
    log:
        "results/private/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=4000,
    params:
        spec=report_spec,
    shell:
        "hepipe report --results results --page {output.page} --status {output.status}"
        " --tables {output.tables} --spec {params.spec:q} > {log} 2>&1"
