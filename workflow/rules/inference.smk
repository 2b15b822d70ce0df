rule predict_tiles:
    """Stain the H&E tiles of one split virtually."""
    input:
        config="results/runs/{run}/config.json",
        model="results/runs/{run}/model.safetensors",
        index=judged_index,
    output:
        directory("results/runs/{run}/on/{dataset}/{split}/virtual.zarr"),
    log:
        "results/private/logs/predict_tiles/{run}/{dataset}-{split}.log",
    benchmark:
        "results/benchmarks/predict_tiles/{run}/{dataset}-{split}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: run_threads
    resources:
        mem_mb=8000,
        gpu=predict_gpus,
    params:
        spec=prediction_spec,
    shell:
        "hepipe predict --config {input.config} --model {input.model} --index {input.index}"
        " --split {wildcards.split} --virtual {output} --spec {params.spec:q} > {log} 2>&1"
