rule tile_case:
    """Cut one registered pair into tiles on a common grid."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
        transform="results/{dataset}/registered/{case}.zarr",
        tissue="results/{dataset}/tissue/{case}.zarr",
        stains="results/{dataset}/stains/{case}.json",
    output:
        tiles=directory("results/{dataset}/tiles/{case}.zarr"),
        index="results/{dataset}/tiles/{case}.parquet",
    log:
        "results/private/logs/tile_case/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/tile_case/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 4
    resources:
        mem_mb=8000,
    params:
        pair=pair_options,
        spec=section("tiling"),
        store=section("store"),
        learned=learned_option,
    shell:
        "hepipe tile {params.pair} --checked {input.checked} --transform {input.transform}"
        " --tissue {input.tissue} --stains {input.stains} --tiles {output.tiles} --index {output.index}"
        " --spec {params.spec:q} --store {params.store:q} {params.learned}"
        " --workers {threads} > {log} 2>&1"


rule import_tiles:
    """Bring a tile set made elsewhere into the tile store."""
    input:
        folder=import_folder,
        lists=import_inputs,
    output:
        tiles=directory("results/{dataset}/tiles/imported.zarr"),
        index="results/{dataset}/tiles/imported.parquet",
        stains="results/{dataset}/stains/imported.json",
        contact="results/{dataset}/pictures/imported/contact.png",
        names="results/private/{dataset}/imported.csv",
    log:
        "results/private/logs/import_tiles/{dataset}.log",
    benchmark:
        "results/benchmarks/import_tiles/{dataset}.tsv"
    conda:
        "../../envs/slides.yaml"
    threads: 2
    resources:
        mem_mb=8000,
    params:
        kind=import_kind,
        lists=import_options,
        spec=import_spec,
        stains=section("stains"),
        store=section("store"),
        learned=learned_option,
        stamp=import_stamp,
    shell:
        "hepipe import {params.kind} {input.folder:q} --out results/{wildcards.dataset} --spec {params.spec:q}"
        " {params.lists} --stains-spec {params.stains:q} --store {params.store:q} {params.learned}"
        " --workers {threads} > {log} 2>&1"
