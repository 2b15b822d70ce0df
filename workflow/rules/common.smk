import hashlib
import json
import shlex
import sys
from pathlib import Path

from hepipe.cli.run import check_folder
from hepipe.config import case_rows, decision_files, load_config, transforms_folder
from hepipe.errors import ConfigError, HepipeError
from hepipe.metrics.catalog import check_primary
from hepipe.models.catalog import check_run, check_targets
from hepipe.specs.imports import FILES as IMPORT_FILES
from hepipe.specs.training import protocol_in_words
from hepipe.specs.twice import refuse_twice
from hepipe.weights.store import named_file


def stop(error):
    """End before anything runs, with the message alone."""
    raise WorkflowError(str(error))


def markers(config, name):
    """What the IHC of a data set stains."""
    known = config.datasets[name].known_marker
    return frozenset(
        [known] if known is not None else (row.marker for row in ROWS[name].values())
    )


try:
    check_folder(Path("results"))
    for _file in workflow.configfiles:
        refuse_twice(Path(_file))
    CONFIG = load_config(config)
    for _run in CONFIG.runs:
        check_run(CONFIG, _run)
    for _dataset in CONFIG.datasets.values():
        # Missed before anything runs, not after hours of registration; its hash is checked where it is read.
        if _dataset.sections.quality.learned is not None:
            named_file(_dataset.sections.quality.learned.file)
    ROWS = {
        name: {row.case_id: row for row in case_rows(CONFIG, name)}
        for name in CONFIG.datasets
    }
    check_targets(CONFIG, {name: markers(CONFIG, name) for name in CONFIG.datasets})
    check_primary(CONFIG.evaluation.primary)
    DECISIONS = {name: decision_files(CONFIG, name) for name in CONFIG.datasets}
    TRANSFORMS = {name: transforms_folder(CONFIG, name) for name in CONFIG.datasets}
except HepipeError as error:
    stop(error)


wildcard_constraints:
    dataset="[A-Za-z0-9][A-Za-z0-9_-]*",
    case=r"(?!imported(?![A-Za-z0-9_-]))[A-Za-z0-9][A-Za-z0-9_.-]*",
    part="[A-Za-z0-9][A-Za-z0-9_.-]*",
    run="[A-Za-z0-9][A-Za-z0-9_-]*",
    split="train|val|test",
    fold="[0-9]+",


# The rule's own environment with --sdm, this interpreter otherwise, whatever `python` is on the PATH.
_python = (
    "python"
    if workflow.deployment_settings.deployment_method
    else shlex.quote(sys.executable)
)
# Doubled braces: Snakemake formats the prefix once more.
_path = shlex.quote(workflow.basedir)
shell.prefix(
    f"export PYTHONPATH={_path}"
    '"${{PYTHONPATH:+:$PYTHONPATH}}"; hepipe() {{ '
    f'{_python} -m hepipe "$@"; }}}}; '
    f"hepipe_on() {{{{ {_python} -m torch.distributed.run --standalone --nproc-per-node "
    '"$1" -m hepipe "${{@:2}}"; }}; '
)


def row_of(wildcards):
    """The sheet's row of a case."""
    return ROWS[wildcards.dataset][wildcards.case]


def row_json(wildcards):
    """The row as JSON: a changed row runs its own case again, and no other."""
    return row_of(wildcards).model_dump_json()


def is_drawn(dataset):
    """Whether the workflow itself makes the data set's slides."""
    return CONFIG.datasets[dataset].synth is not None


def slide_files(wildcards):
    """The files of a case that are there: a missing one is a verdict of check_slides, not the end of the run."""
    row = row_of(wildcards)
    files = [
        row.he,
        row.ihc,
        *(row.landmarks or "").split(";"),
    ]
    return [
        file
        for file in files
        if file and (is_drawn(wildcards.dataset) or Path(file).is_file())
    ]


def pair_options(wildcards):
    """How a command finds the two slides."""
    row = row_of(wildcards)
    return f"--he {shlex.quote(row.he)} --ihc {shlex.quote(row.ihc)}"


def landmark_option(wildcards):
    """Landmarks of the case, where the sheet names any."""
    landmarks = row_of(wildcards).landmarks
    return f"--landmarks {shlex.quote(landmarks)}" if landmarks else ""


def stored_transform(wildcards):
    """The stored transform of a case, if it is there: a missing one is a verdict of register_case."""
    folder = TRANSFORMS[wildcards.dataset]
    stored = (
        None if folder is None else folder / "registered" / f"{wildcards.case}.zarr"
    )
    return [str(stored)] if stored is not None and stored.is_dir() else []


def stored_option(wildcards):
    """Where stored transforms lie, for a data set that takes them."""
    folder = TRANSFORMS[wildcards.dataset]
    return "" if folder is None else f"--from {shlex.quote(str(folder))}"


def registration_spec(wildcards):
    """The section as JSON; that of a data set which takes stored transforms counts for nothing."""
    if TRANSFORMS[wildcards.dataset] is not None:
        return "{}"
    return section("registration")(wildcards)


def region_file(wildcards):
    """The regions of a case, if the file is there: only its tissue and what follows depend on them."""
    regions = row_of(wildcards).regions
    return [regions] if regions and Path(regions).is_file() else []


def region_option(wildcards):
    """Regions of the case, where the sheet names any."""
    regions = row_of(wildcards).regions
    return f"--regions {shlex.quote(regions)}" if regions else ""


def section(name):
    """A function that gives a data set's own section as JSON."""

    def spec(wildcards):
        return getattr(
            CONFIG.datasets[wildcards.dataset].sections, name
        ).model_dump_json()

    return spec


def stains_spec(wildcards):
    """The section `stains` with the vectors of the case's own batch: those of another one run it no second time."""
    spec = CONFIG.datasets[wildcards.dataset].sections.stains
    return spec.of_batch(row_of(wildcards).batch).model_dump_json()


def learned_option(wildcards):
    """The user's own network, where the config names one; its limits are no part of it, as they cut nothing again."""
    learned = CONFIG.datasets[wildcards.dataset].sections.quality.learned
    if learned is None:
        return ""
    return f"--learned {shlex.quote(learned.model_dump_json(exclude={'drop'}))}"


def registration_threads(wildcards):
    """The threads that the config names: they are part of the result, so the machine has no say."""
    return CONFIG.datasets[wildcards.dataset].sections.registration.threads


def synth_pairs_spec(wildcards):
    """The values that the aligned pairs depend on; their patients are others than the cohort's."""
    return CONFIG.datasets[wildcards.dataset].synth.model_dump_json(
        exclude={"patients"}
    )


def synth_case_spec(wildcards):
    """The values that one case depends on: a further patient draws no other one again."""
    return CONFIG.datasets[wildcards.dataset].synth.model_dump_json(
        exclude={"patients", "pairs", "pair_px"}
    )


def synth_number(wildcards):
    """Which patient of the cohort a case is, from 1."""
    return list(ROWS[wildcards.dataset]).index(wildcards.case) + 1


def import_spec(wildcards):
    """How an imported set reads, as JSON; where it lies stays out of artefacts."""
    return CONFIG.datasets[wildcards.dataset].import_.model_dump_json(
        exclude=set(IMPORT_FILES)
    )


def import_kind(wildcards):
    """What kind of set it is."""
    return CONFIG.datasets[wildcards.dataset].import_.kind


def import_lists(wildcards):
    """The files that a person gives beside the set, by the option that takes them."""
    spec = CONFIG.datasets[wildcards.dataset].import_
    named = {name: getattr(spec, name) for name in IMPORT_FILES if name != "path"}
    return {name: str(Path(CONFIG.data) / file) for name, file in named.items() if file}


def import_inputs(wildcards):
    """Those files: a changed list imports again."""
    return list(import_lists(wildcards).values())


def import_options(wildcards):
    """Those files as options."""
    return " ".join(
        f"--{name} {shlex.quote(file)}"
        for name, file in import_lists(wildcards).items()
    )


def import_folder(wildcards):
    """The folder of an imported set."""
    return str(Path(CONFIG.data) / CONFIG.datasets[wildcards.dataset].import_.path)


def import_stamp(wildcards):
    """Names, sizes and times of a set's files, as a digest: the folder's own time misses a picture that is replaced."""
    folder = Path(import_folder(wildcards))
    # What the workflow draws itself is not there yet when a job is planned.
    if folder.parts[:1] == ("results",):
        return ""
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    seen = [(str(path.relative_to(folder)), path.lstat()) for path in files]
    text = json.dumps([[name, one.st_size, one.st_mtime_ns] for name, one in seen])
    return hashlib.sha256(text.encode()).hexdigest()


def parts_of(dataset):
    """What the tables of a data set are named by: its cases, or `imported`."""
    return (
        ["imported"]
        if CONFIG.datasets[dataset].import_ is not None
        else list(ROWS[dataset])
    )


def dataset_tables(wildcards):
    """Tile tables and verdicts of all cases of a data set."""
    folder = f"results/{wildcards.dataset}"
    return [
        f"{folder}/{room}/{part}.parquet"
        for room in ("tiles", "verdict")
        for part in parts_of(wildcards.dataset)
    ]


def decisions(wildcards):
    """What people decided about the tiles of a data set."""
    return DECISIONS[wildcards.dataset]


def decision_options(wildcards):
    """Those files as options."""
    files = decisions(wildcards)
    return " ".join(f"--decisions {shlex.quote(str(file))}" for file in files)


def curation_spec(wildcards):
    """How decisions are followed, as JSON; where they lie stays out of it."""
    spec = CONFIG.datasets[wildcards.dataset].sections.curation
    return spec.model_dump_json(exclude={"decisions"})


def of_cases(pattern):
    """A function that gives one file of each pair of a data set."""

    def files(wildcards):
        folder = f"results/{wildcards.dataset}"
        return [
            f"{folder}/{pattern.format(case=case)}" for case in ROWS[wildcards.dataset]
        ]

    return files


def case_list(wildcards):
    """The ids of a data set's parts, with commas between."""
    return ",".join(parts_of(wildcards.dataset))


def all_indices(wildcards):
    """Every data set's index."""
    return [f"results/{dataset}/index.parquet" for dataset in CONFIG.datasets]


def all_reviews(wildcards):
    """The review page of every data set that has slides; it stands on the pictures of all cases."""
    return [f"results/{dataset}/review.html" for dataset, rows in ROWS.items() if rows]


def splits_by_dataset(run):
    """The splits that a run is evaluated on, by data set."""
    found = {}
    for dataset, split in CONFIG.targets(run):
        found.setdefault(dataset, []).append(split)
    return found


def report_spec(wildcards):
    """What the report is about, as JSON; names of files stay out of it."""
    kinds = {True: "synthetic cohort", False: "slides"}
    return json.dumps(
        {
            "title": CONFIG.title,
            "primary": CONFIG.evaluation.primary,
            "datasets": {
                name: {
                    "kind": "imported tiles" if spec.import_ else kinds[is_drawn(name)],
                    "cases": parts_of(name),
                    "note": spec.note,
                }
                for name, spec in CONFIG.datasets.items()
            },
            "runs": {
                run: {
                    "dataset": spec.dataset,
                    "on": splits_by_dataset(run),
                    "outside": CONFIG.outside(run),
                }
                for run, spec in CONFIG.runs.items()
            },
            "protocol": protocol_in_words(CONFIG.training, CONFIG.evaluation),
            "bootstrap": CONFIG.evaluation.bootstrap,
        }
    )


def record_start():
    """Remember whose run this is, so that a later one can tell a dead lock from a living one."""
    from hepipe.cli.run import write_run_record

    write_run_record(Path("results/private/run.json"))


def explain_failure(snakemake_logs):
    """One error for the jobs that failed, instead of one each."""
    from hepipe.cli.run import explain

    for snakemake_log in snakemake_logs:
        print(explain(Path(snakemake_log)), file=sys.stderr)
