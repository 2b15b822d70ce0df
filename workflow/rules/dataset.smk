rule assemble_dataset:
    """Join the kept tiles of all cases, split them by patient and take the fingerprint."""
    input:
        tables=dataset_tables,
        decisions=decisions,
    output:
        index="results/{dataset}/index.parquet",
        card="results/{dataset}/dataset.json",
        curated="results/{dataset}/curated.csv",
        funnel="results/{dataset}/funnel.json",
    log:
        "results/private/logs/assemble_dataset/{dataset}.log",
    benchmark:
        "results/benchmarks/assemble_dataset/{dataset}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=4000,
    params:
        folder="results/{dataset}",
        cases=case_list,
        spec=section("splits"),
        decisions=decision_options,
        curation=curation_spec,
    shell:
        "hepipe assemble --folder {params.folder} --cases {params.cases:q} --index {output.index}"
        " --card {output.card} --spec {params.spec:q} {params.decisions} --curation {params.curation:q}"
        " --curated {output.curated} --funnel {output.funnel} > {log} 2>&1"


rule index_fold:
    """Give a fold its index: the same tiles, that fold as test, the next one as val."""
    input:
        "results/{dataset}/index.parquet",
    output:
        "results/{dataset}/fold-{fold}.parquet",
    log:
        "results/private/logs/index_fold/{dataset}/{fold}.log",
    benchmark:
        "results/benchmarks/index_fold/{dataset}/{fold}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=2000,
    shell:
        "hepipe fold --index {input} --fold {wildcards.fold} --out {output} > {log} 2>&1"
