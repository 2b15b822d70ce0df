rule assemble_dataset:
    """Join the kept tiles of all cases, split them by patient and take the fingerprint."""
    input:
        dataset_tables,
    output:
        index="results/{dataset}/index.parquet",
        card="results/{dataset}/dataset.json",
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
    shell:
        "hepipe assemble --folder {params.folder} --cases {params.cases:q} --index {output.index}"
        " --card {output.card} --spec {params.spec:q} > {log} 2>&1"
