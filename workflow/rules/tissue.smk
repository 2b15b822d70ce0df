rule find_tissue:
    """Find tissue on both slides, keep what they share, and take in the regions that a person outlined."""
    input:
        slides=slide_files,
        regions=region_file,
        checked="results/{dataset}/checked/{case}.json",
        transform="results/{dataset}/registered/{case}.zarr",
    output:
        tissue=directory("results/{dataset}/tissue/{case}.zarr"),
        outlines="results/{dataset}/tissue/{case}.geojson",
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
        regions=region_option,
        spec=section("tissue"),
    shell:
        "hepipe tissue {params.pair} --checked {input.checked} --transform {input.transform}"
        " {params.regions} --tissue {output.tissue} --outlines {output.outlines}"
        " --spec {params.spec:q} > {log} 2>&1"
