rule register_case:
    """Find where each point of the H&E slide lies on the IHC slide, or take what a data set has stored of it."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
        stored=stored_transform,
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
        stored=stored_option,
        spec=registration_spec,
    shell:
        "hepipe register {params.pair} --checked {input.checked} {params.landmarks} {params.stored}"
        " --transform {output} --spec {params.spec:q} > {log} 2>&1"


rule landmarks_page:
    """Write the page on which a person sets landmarks for one case."""
    input:
        slides=slide_files,
        checked="results/{dataset}/checked/{case}.json",
        transform="results/{dataset}/registered/{case}.zarr",
    output:
        "results/{dataset}/landmarks/{case}.html",
    log:
        "results/private/logs/landmarks_page/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/landmarks_page/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=2000,
    params:
        pair=pair_options,
        landmarks=landmark_option,
    shell:
        "hepipe landmarks page {params.pair} --checked {input.checked} {params.landmarks}"
        " --transform {input.transform} --page {output} > {log} 2>&1"


rule review:
    """One page on the pairs of a data set that a person should look at, and what to do about each."""
    input:
        checked=of_cases("checked/{case}.json"),
        pictures=of_cases("pictures/{case}"),
        landmarks=of_cases("landmarks/{case}.html"),
    output:
        "results/{dataset}/review.html",
    log:
        "results/private/logs/review/{dataset}.log",
    benchmark:
        "results/benchmarks/review/{dataset}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=2000,
    params:
        folder="results/{dataset}",
        cases=case_list,
    shell:
        "hepipe review --folder {params.folder} --cases {params.cases:q} --page {output} > {log} 2>&1"
