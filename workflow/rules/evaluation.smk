rule score_run:
    """Measure the virtual tiles of one run on one split."""
    input:
        config="results/runs/{run}/config.json",
        index=judged_index,
        trained=learned_indices,
        virtual="results/runs/{run}/on/{dataset}/{split}/virtual.zarr",
    output:
        "results/runs/{run}/on/{dataset}/{split}/scores.parquet",
    log:
        "results/private/logs/score_run/{run}/{dataset}-{split}.log",
    benchmark:
        "results/benchmarks/score_run/{run}/{dataset}-{split}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=6000,
    params:
        trained=learned_options,
        spec=scoring_spec,
    shell:
        "hepipe score --config {input.config} --dataset {wildcards.dataset} --split {wildcards.split}"
        " --index {input.index} --virtual {input.virtual} {params.trained} --scores {output}"
        " --spec {params.spec:q} > {log} 2>&1"
