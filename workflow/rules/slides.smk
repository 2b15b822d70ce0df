rule check_slides:
    """Open both slides of a case and say whether they can be used."""
    input:
        slide_files,
    output:
        checked="results/{dataset}/checked/{case}.json",
        private="results/private/{dataset}/{case}/row.json",
    log:
        "results/private/logs/check_slides/{dataset}/{case}.log",
    benchmark:
        "results/benchmarks/check_slides/{dataset}/{case}.tsv"
    conda:
        "../../envs/slides.yaml"
    resources:
        mem_mb=2000,
    params:
        row=row_json,
        spec=section("slides"),
    shell:
        "hepipe check --row {params.row:q} --checked {output.checked} --private {output.private}"
        " --spec {params.spec:q} > {log} 2>&1"
