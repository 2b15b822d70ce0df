rule resolve_run:
    """Complete a run's configuration, so that no GPU hour is spent on a bad option."""
    input:
        start=given_start,
    output:
        "results/runs/{run}/config.json",
    log:
        "results/private/logs/resolve_run/{run}.log",
    benchmark:
        "results/benchmarks/resolve_run/{run}.tsv"
    conda:
        "../../envs/train.yaml"
    resources:
        mem_mb=2000,
    params:
        spec=run_spec,
    shell:
        "hepipe resolve --run {wildcards.run} --config {output} --spec {params.spec:q} > {log} 2>&1"


rule train:
    """Train one model; a killed job goes on from its last resume file."""
    input:
        config="results/runs/{run}/config.json",
        index=run_index,
        card=run_card,
        parts=run_parts,
    output:
        model="results/runs/{run}/model.safetensors",
        history="results/runs/{run}/history.parquet",
    log:
        "results/private/logs/train/{run}.log",
    benchmark:
        "results/benchmarks/train/{run}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: train_threads
    resources:
        mem_mb=16000,
        gpu=train_gpus,
    params:
        launcher=train_launcher,
        parts=part_options,
        start=start_option,
    shell:
        "{params.launcher} train --config {input.config} --index {input.index} --card {input.card} {params.parts}"
        " {params.start}"
        " --model {output.model} --history {output.history} > {log} 2>&1"
