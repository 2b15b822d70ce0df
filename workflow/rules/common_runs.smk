# What the rules of runs ask of the configuration; read after common.smk, whose CONFIG this is.

import shlex

from hepipe.models.catalog import ancestors
from hepipe.specs.start import in_words
from hepipe.weights.start import split_group, start_files


def run_spec(wildcards):
    """One training run as JSON; another test set trains nothing again."""
    return CONFIG.runs[wildcards.run].model_dump_json(exclude={"test_on"})


def run_dataset(wildcards, file):
    """A file of the data set that a run trains on."""
    return f"results/{CONFIG.runs[wildcards.run].dataset}/{file}"


def run_index(wildcards):
    """Index of the run's training tiles, with the splits of its fold."""
    fold = CONFIG.runs[wildcards.run].fold
    return run_dataset(
        wildcards, "index.parquet" if fold is None else f"fold-{fold}.parquet"
    )


def judged_index(wildcards):
    """Index of the tiles that a run is evaluated on: those of its fold in the data set that it was trained on."""
    if wildcards.dataset == CONFIG.runs[wildcards.run].dataset:
        return run_index(wildcards)
    return f"results/{wildcards.dataset}/index.parquet"


def learned_indices(wildcards):
    """Indices of all that a run has learned from: its own first, then those of the runs that it builds on."""
    others = ancestors(CONFIG, wildcards.run) - {wildcards.run}
    found = [run_index(wildcards)]
    for other in sorted(others & CONFIG.runs.keys()):
        spec = CONFIG.runs[other]
        name = "index" if spec.fold is None else f"fold-{spec.fold}"
        found.append(f"results/{spec.dataset}/{name}.parquet")
    return list(dict.fromkeys(found))


def learned_options(wildcards):
    """Those indices as options."""
    return " ".join(f"--trained {index}" for index in learned_indices(wildcards))


def run_card(wildcards):
    """Card of the run's training tiles."""
    return run_dataset(wildcards, "dataset.json")


def run_parts(wildcards):
    """Finished models that a run builds on, and what it starts from."""
    parts = CONFIG.runs[wildcards.run].parts.values()
    models = [
        f"results/runs/{part}/model.safetensors"
        for part in parts
        if part in CONFIG.runs
    ]
    return models + [
        str(split_group(file)[0]) for file in run_start(wildcards).values()
    ]


def run_start(wildcards):
    """What a run starts from: the file of each network, or of all."""
    init_from = CONFIG.runs[wildcards.run].init_from
    return start_files(init_from, runs=Path("results/runs"))


def given_start(wildcards):
    """The files among them that no run of this config makes: the record holds their hashes."""
    found = start_files(CONFIG.runs[wildcards.run].init_from)
    return [str(split_group(file)[0]) for file in found.values()]


def start_option(wildcards):
    """Those files as an option."""
    return (
        f"--init-from {shlex.quote(in_words(run_start(wildcards)))}"
        if CONFIG.runs[wildcards.run].init_from
        else ""
    )


def part_options(wildcards):
    """Those models as options."""
    parts = CONFIG.runs[wildcards.run].parts.items()
    return " ".join(
        f"--part {name}=results/runs/{part}"
        for name, part in parts
        if part in CONFIG.runs
    )


def run_threads(wildcards):
    """The threads that the run's protocol names."""
    return CONFIG.runs[wildcards.run].training.threads


def train_threads(wildcards):
    """Those threads for each process of a training."""
    return run_threads(wildcards) * max(train_gpus(wildcards), 1)


def train_gpus(wildcards):
    """How many GPUs a run trains on."""
    training = CONFIG.runs[wildcards.run].training
    return training.gpus if training.device == "cuda" else 0


def predict_gpus(wildcards):
    """How many GPUs its predictions take: tiles of one process come out the same on every machine."""
    return min(train_gpus(wildcards), 1)


def train_launcher(wildcards):
    """How the command is started: by torchrun, a process a GPU, when there are several."""
    gpus = train_gpus(wildcards)
    return f"hepipe_on {gpus}" if gpus > 1 else "hepipe"


def prediction_spec(wildcards):
    """How tiles are predicted, as JSON."""
    return CONFIG.evaluation.prediction()


def scoring_spec(wildcards):
    """How they are measured, as JSON."""
    return CONFIG.evaluation.scoring()


def all_scores(wildcards):
    """Scores of every run on each of its test sets."""
    return [
        f"results/runs/{run}/on/{dataset}/{split}/scores.parquet"
        for run in CONFIG.runs
        for dataset, split in CONFIG.targets(run)
    ]
