rule find_tissue:
    """Find tissue on both slides and keep what they share."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
        transform="results/{dataset}/registered/{case}.zarr",
    output:
        directory("results/{dataset}/tissue/{case}.zarr"),
    log:
        "results/private/logs/find_tissue/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/find_tissue/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=3000,
    params:
        pair=pair_options,
        spec=section("tissue"),
    shell:
        "hepipe tissue {params.pair} --checked {input.checked} --transform {input.transform}"
        " --tissue {output} --spec {params.spec:q} > {log} 2>&1"
