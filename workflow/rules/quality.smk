rule grade_tiles:
    """Say which tiles are kept and why the others are not; reads the table alone."""
    input:
        "results/{dataset}/tiles/{part}.parquet",
    output:
        "results/{dataset}/verdict/{part}.parquet",
    log:
        "results/private/logs/grade_tiles/{dataset}/{part}.log",
    benchmark:
        "results/benchmarks/grade_tiles/{dataset}/{part}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=1000,
    params:
        spec=section("quality"),
    shell:
        "hepipe grade --index {input} --verdict {output} --spec {params.spec:q} > {log} 2>&1"
