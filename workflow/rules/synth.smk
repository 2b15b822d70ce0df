rule draw_case:
    """Draw one synthetic pair of slides with its truth."""
    output:
        he="results/synth/{dataset}/{case}/he.tif",
        ihc="results/synth/{dataset}/{case}/ihc.tif",
        landmarks="results/synth/{dataset}/{case}/landmarks.csv",
        truth=directory("results/synth/{dataset}/{case}/truth.zarr"),
    log:
        "results/private/logs/draw_case/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/draw_case/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=2000,
    params:
        number=synth_number,
        spec=synth_case_spec,
        folder="results/synth/{dataset}/{case}",
    shell:
        "hepipe synth case --number {params.number} --folder {params.folder}"
        " --spec {params.spec:q} > {log} 2>&1"


rule draw_pairs:
    """Draw aligned tile pairs of further synthetic patients, as another tool would hand them over."""
    output:
        directory("results/synth/{dataset}/pairs"),
    log:
        "results/private/logs/draw_pairs/{dataset}.log",
    benchmark:
        "results/benchmarks/draw_pairs/{dataset}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=2000,
    params:
        spec=synth_pairs_spec,
    shell:
        "hepipe synth pairs --folder {output} --spec {params.spec:q} > {log} 2>&1"
