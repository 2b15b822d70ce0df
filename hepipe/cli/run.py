"""`hepipe run`: Snakemake with a dead lock cleared before, and where the time went after."""

from __future__ import annotations

import csv
import json
import os
import re
import socket
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Annotated

import typer

from hepipe.errors import ConfigError, HepipeError

RECORD = Path("results/private/run.json")


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(run)
    app.command()(status)


def run(
    context: typer.Context,
    cores: Annotated[str, typer.Option(help="As Snakemake takes it: a number or `all`.")] = "all",
    strict: Annotated[bool, typer.Option("--strict", help="Exit 1 when any case failed.")] = False,
) -> None:
    """Run the workflow; further options go to Snakemake, such as --configfile my.yaml or -n."""
    if not Path("Snakefile").is_file():
        raise ConfigError("no Snakefile here; change into the folder of the repository and run again")
    clear_dead_lock(RECORD)
    command = [sys.executable, "-m", "snakemake", "--cores", cores, *context.args]
    code = subprocess.run(command, check=False).returncode
    is_dry = any(option in {"-n", "--dry-run", "--dryrun"} for option in context.args)
    if code == 0 and not is_dry:
        typer.echo(time_table(Path("results/benchmarks")))
        typer.echo("report: results/report.html\nstatus: results/status.tsv")
        failed = [row for row in _status_rows(Path("results/status.tsv")) if row["state"] == "failed"]
        for row in failed:
            typer.echo(f"failed: {row['dataset']}/{row['case_id']} at {row['stage']}: {row['reason']}")
        if strict and failed:
            code = 1
    raise typer.Exit(code)


def status(
    table: Annotated[Path, typer.Option(help="The status table of a run.")] = Path("results/status.tsv"),
) -> None:
    """Print how many cases are ok, in review and failed, and why."""
    rows = _status_rows(table)
    if not rows:
        raise HepipeError(f"{table}: no such table; it is written at the end of a run")
    typer.echo(", ".join(f"{count} {state}" for state, count in sorted(Counter(row["state"] for row in rows).items())))
    for row in rows:
        if row["state"] != "ok":
            typer.echo(f"{row['dataset']}/{row['case_id']}: {row['state']} at {row['stage']}: {row['reason']}")


def check_folder(folder: Path) -> None:
    """Make sure that results can be written, before Snakemake looks for them.

    Raises:
        HepipeError: The folder is a file, or this user may not write there.
    """
    place = folder if folder.exists() else folder.absolute().parent
    if not place.is_dir():
        raise _unwritable(folder, "it is a file, a folder is expected")
    if not os.access(place, os.W_OK | os.X_OK):
        raise _unwritable(folder, "this user has no right to")


def write_run_record(path: Path) -> None:
    """Say which process on which host holds the working folder.

    Raises:
        HepipeError: The results folder cannot be written to.
    """
    record = {"pid": os.getpid(), "host": socket.gethostname(), "started": _started(os.getpid())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path.parent, error.strerror or "unknown reason") from None


def _unwritable(folder: Path, reason: str) -> HepipeError:
    return HepipeError(
        f"the folder {folder} cannot be written to: {reason}; move what is there away, give this user the right to "
        "write, free space, or run from another folder"
    )


def clear_dead_lock(path: Path) -> None:
    """Unlock the working folder when the recorded process of this host is gone; leave a living one alone.

    Raises:
        HepipeError: Another run is alive, or the lock was made on another host.
    """
    locks = Path(".snakemake/locks")
    if not locks.is_dir() or not any(locks.iterdir()):
        return
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        pid, host, started = int(record["pid"]), str(record["host"]), str(record["started"])
    except (OSError, ValueError, KeyError, TypeError):
        raise HepipeError(
            "the folder is locked and no run is recorded; when no Snakemake works here, run `snakemake --unlock` first"
        ) from None
    if host != socket.gethostname():
        raise HepipeError(
            f"the folder is locked by a run on host {host}; when it has ended, run `snakemake --unlock` first"
        )
    if started and _started(pid) == started:
        raise HepipeError(f"another run works here (process {pid}); wait for it or end it")
    typer.echo(f"the last run (process {pid}) is gone: unlocking", err=True)
    subprocess.run([sys.executable, "-m", "snakemake", "--unlock"], check=True, stderr=subprocess.DEVNULL)


def time_table(folder: Path) -> str:
    """Wall time by rule from Snakemake's benchmark files, longest first."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for file in folder.rglob("*.tsv"):
        rule = file.relative_to(folder).parts[0].removesuffix(".tsv")
        with file.open(encoding="utf-8", newline="") as lines:
            seconds[rule] += [float(row["s"]) for row in csv.DictReader(lines, delimiter="\t")]
    lines_out = ["where the time went (seconds of wall time; jobs run side by side)"]
    for rule, values in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        lines_out.append(f"  {rule:<18} {len(values):>5} jobs {sum(values):>9.1f} s, {max(values):>7.1f} s the longest")
    return "\n".join(lines_out)


def explain(snakemake_log: Path) -> str:
    """One error for a run's failed jobs: the last line of each failed job's log, equal ones counted once."""
    try:
        text = snakemake_log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "hepipe: the run failed; see Snakemake's messages above"
    reasons: Counter[str] = Counter()
    example: dict[str, str] = {}
    for block in text.split("Error in rule ")[1:]:
        rule = re.match(r"\w+", block)
        log = re.search(r"^\s+log: (\S+)", block, re.MULTILINE)
        reason = last_line(Path(log[1].rstrip(","))) if log else "no log"
        reasons[reason] += 1
        example.setdefault(reason, f"{rule[0] if rule else '?'}, log {log[1].rstrip(',') if log else '-'}")
    lines = [f"hepipe: {sum(reasons.values())} jobs failed; what is finished stays, a new run goes on from there"]
    lines += [f"  {count} x {reason} ({example[reason]})" for reason, count in reasons.most_common(8)]
    return "\n".join([*lines, *verdicts(Path("results"))])


def verdicts(results: Path) -> list[str]:
    """What is known of the data sets when a run ends without a report: tiles kept, and cases that failed."""
    lines = []
    for card in sorted(results.glob("*/dataset.json")):
        try:
            found = json.loads(card.read_text(encoding="utf-8"))
            lines.append(f"  {found['name']}: {found['n_kept']} of {found['n_tiles']} tiles kept")
            for case in found["cases"]:
                verdict = case["status"]
                if verdict["state"] == "failed":
                    lines.append(f"    {case['case_id']} failed at {verdict['stage']}: {verdict['reason']}")
                elif case.get("n_held"):
                    lines.append(
                        f"    {case['case_id']} in review, {case['n_held']} tiles held back: {verdict['reason']}"
                    )
        except (OSError, ValueError, KeyError, TypeError):
            lines.append(f"  {card.parent.name}: its card is not readable")
    return lines


def last_line(log: Path) -> str:
    """The last line of a job's log that says something."""
    try:
        lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:
        return "the job left no log: it was killed, or the disk is full"
    return next((line for line in reversed(lines) if line), "the job left an empty log: it was killed")


def _started(pid: int) -> str:
    """When a process began, as the kernel counts; empty when there is no such process.

    A killed process whose end nobody has asked for yet (a zombie) is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _status_rows(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        return []
    with table.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))
