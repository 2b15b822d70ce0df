rule estimate_stains:
    """Estimate the stain vectors and the white point of both slides from a sample of their tissue."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
        transform="results/{dataset}/registered/{case}.zarr",
        tissue="results/{dataset}/tissue/{case}.zarr",
    output:
        "results/{dataset}/stains/{case}.json",
    log:
        "results/private/logs/estimate_stains/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/estimate_stains/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=3000,
    params:
        pair=pair_options,
        spec=stains_spec,
    shell:
        "hepipe stains estimate {params.pair} --checked {input.checked} --transform {input.transform}"
        " --tissue {input.tissue} --stains {output} --spec {params.spec:q} > {log} 2>&1"
