rule register_case:
    """Find where each point of the H&E slide lies on the IHC slide."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
    output:
        directory("results/{dataset}/registered/{case}.zarr"),
    log:
        "results/private/logs/register_case/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/register_case/{dataset}/{case}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: registration_threads
    resources:
        mem_mb=6000,
    params:
        pair=pair_options,
        landmarks=landmark_option,
        spec=section("registration"),
    shell:
        "hepipe register {params.pair} --checked {input.checked} {params.landmarks}"
        " --transform {output} --spec {params.spec:q} > {log} 2>&1"
