"""The loop that trains every method: turns, precision, accumulation, averages, resume, choice of the checkpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from hepipe.dataset.batch import Batch
from hepipe.dataset.tiles import Sampler, batches
from hepipe.errors import HepipeError
from hepipe.models.finished import finished_state
from hepipe.models.method import Average, Fits, Method, Progress, Turn
from hepipe.models.ranks import n_ranks, rank, sum_over_ranks, wait_for_all
from hepipe.specs.training import TrainingSpec
from hepipe.training.average import move
from hepipe.training.batch_norm import join_batch_norms, refusing_single_values
from hepipe.training.history import History
from hepipe.training.progress import Meter
from hepipe.training.resume import ResumeFolder
from hepipe.training.sides import refusing_crops
from hepipe.training.speed import in_eager, speed_up
from hepipe.training.watch import Choice, Watch, is_better

LEAST_SCALE = 2.0**-10
"""Of losses in fp16. It starts at 2^16 and halves at each overflow: below, small gradients are lost anyway."""

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Player:
    """What the loop keeps for one player of a method."""

    name: str
    parameters: list[Tensor]
    optimizer: Optimizer
    base_rates: list[float]
    averages: list[Average]
    scaler: torch.amp.GradScaler

    def step(
        self, method: Method, at: Progress, *, clip: float | None, terms: Float[Tensor, " t"]
    ) -> dict[str, Tensor]:
        """One step of the optimizer with the gradients of all processes, then of the averages.

        Args:
            method: Gives the rate.
            at: Where training stands.
            clip: Largest gradient norm.
            terms: This process' share of the loss terms.

        Returns:
            `terms`, those of all processes; `gradient`, its norm before clipping; with a loss scale also `skipped`, 1
            where a gradient did not fit half precision, so that no process stepped; `gradient` is 0 there.
        """
        factor = method.rate(self.name, at)
        for group, base in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = base * factor
        # Before the scale is taken out: one process' overflow is then in every process' sum, and all skip the step.
        terms = sum_over_ranks(self.parameters, terms)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None]).to(terms.device)
        if clip is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        for average in self.averages:
            move(average, at)
        told = {"terms": terms, "gradient": norm}
        if self.scaler.is_enabled():
            skipped = ~norm.isfinite()
            told |= {"gradient": norm.where(~skipped, 0.0), "skipped": skipped.float()}
        return told

    def state(self) -> dict[str, Any]:
        """For a resume file."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a resume file."""
        self.optimizer.load_state_dict(dict(state["optimizer"]))
        self.scaler.load_state_dict(dict(state["scaler"]))


def make_players(method: Method, *, precision: str, device: torch.device) -> dict[str, Player]:
    """The players of a method, already on its device, with fresh optimizers."""
    players = {}
    for name, network in method.players().items():
        optimizer = method.optimizer(name)
        players[name] = Player(
            name,
            [parameter for parameter in network.parameters() if parameter.requires_grad],
            optimizer,
            [float(group["lr"]) for group in optimizer.param_groups],
            [average for average in method.averages().values() if average.player == name],
            torch.amp.GradScaler(device.type, enabled=precision == "fp16"),
        )
    return players


def next_turn(turns: Iterator[Turn], *, precision: str, device: torch.device) -> Turn | None:
    """The next turn, computed in its own autocast.

    Autocast keeps weights as it first cast them until it is left, so one context over two turns would let the second
    see a player as it was before its step.
    """
    if precision == "fp32":
        return next(turns, None)
    with torch.autocast(device.type, dtype=DTYPES[precision]):
        return next(turns, None)


def iterate(
    method: Method,
    batch: Batch,
    at: Progress,
    players: Mapping[str, Player],
    *,
    n_tiles: int | None = None,
    pieces: int = 1,
    precision: str = "fp32",
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """One iteration: every turn steps its own player.

    The pieces of the batch go through their turns in lockstep, each loss weighted by its share of the tiles.

    Args:
        method: On the batch's device.
        batch: Tiles of this process.
        at: Where training stands.
        players: Of the method.
        n_tiles: Of the batches of all processes; None means that this is the only one.
        pieces: The same on every process.
        precision: Of the turns' autocast.

    Returns:
        After each step its player, and the means over the tiles of all processes of what its turn logs and of `loss`,
        with the norm of the gradient.
    """
    parts = batch.pieces(pieces)
    shares = [len(part) / (n_tiles or len(batch)) for part in parts]
    generators = [method.turns(part, at) for part in parts]
    while True:
        turns = []
        for share, generator in zip(shares, generators, strict=True):
            turn = next_turn(generator, precision=precision, device=batch.he.device)
            turns.append(turn)
            if turn is not None:
                player = players[turn.player]
                player.scaler.scale(turn.loss.float() * share).backward(inputs=player.parameters)
        come = [turn for turn in turns if turn is not None]
        if not come:
            return
        player, clip = players[come[0].player], come[0].clip
        if len(come) < len(turns) or any((turn.player, turn.clip) != (player.name, clip) for turn in come):
            raise ValueError(
                f"pieces of a batch disagree on whose turn it is: {[turn and turn.player for turn in turns]}"
            )
        names, values = _terms(come, shares)
        del turns, turn, come
        told = player.step(method, at, clip=clip, terms=values)
        yield player.name, {**dict(zip(names, told.pop("terms").unbind(), strict=True)), **told}


def train_method(
    method: Method,
    sampler: Sampler,
    *,
    spec: TrainingSpec,
    seed: int,
    device: torch.device,
    watch: Watch,
    choice: Choice | None,
    resume: ResumeFolder,
    history: History,
    samples: Path,
    count: Callable[[], None] | None = None,
) -> dict[str, Tensor]:
    """Train a method and return the finished model's tensors; goes on where resume files end.

    Args:
        method: As built.
        sampler: Batches of this process.
        spec: The protocol.
        seed: Of the run.
        device: Where to train.
        watch: Validation tiles.
        choice: The metric that chooses the checkpoint; None takes the last.
        resume: Where this run's resume files lie.
        history: Gets the loss terms.
        samples: Folder of pictures.
        count: Told of every step, once all of it is done.
    """
    method.to(device)
    method.train()
    if spec.sync_batch_norm:
        assert isinstance(method, nn.Module), type(method)
        join_batch_norms(method)
    if isinstance(method, Fits):
        return _fit(method, sampler, spec=spec, device=device, watch=watch, samples=samples)
    players = make_players(method, precision=spec.precision, device=device)
    if not players:
        raise HepipeError(f"run {history.run}: its model has neither players nor `fit`, so nothing can train")
    speed_up(method, spec, device=device, where=f"runs.{history.run}.training")
    start, best_step, best_value = 0, None, None
    meter = Meter(name=history.run, n_steps=spec.n_steps, device=device, quiet=rank() > 0)
    if (state := resume.load(device, say=meter.say)) is not None:
        start, best_step, best_value = state["step"], state["best_step"], state["best_value"]
        method.load_state_dict(state["method"])
        history.load(state["history"])
        for name, player in players.items():
            player.load(state["players"][name])
        del state  # or the loaded tensors stay beside the model's
        meter.say(f"goes on from step {start}")
    # As many as the process with the fewest tiles can cut, since all of them meet in every turn.
    pieces = min(spec.accumulation, spec.batch_size // n_ranks())
    steps = range(start, spec.n_steps)
    meter.begin(start)
    loaded_ahead = batches(sampler, steps, workers=spec.workers, pin=device.type == "cuda")
    for step, loaded in zip(steps, loaded_ahead, strict=True):
        at = Progress(step, spec.n_steps, sampler.steps_per_epoch, seed=step_seed(seed, step))
        batch = loaded.to(device)
        torch.manual_seed(step_seed(seed, step, sampler.rank))
        turns = iterate(method, batch, at, players, n_tiles=sampler.batch_size, pieces=pieces, precision=spec.precision)
        # Not where networks are compiled: hooks that come and go would compile them twice.
        looking = step == start and spec.compile == "none"
        with ExitStack() as refusing:
            if step == start:
                refusing.enter_context(refusing_crops(spec.crop_px, run=history.run))
            if looking:
                refusing.enter_context(refusing_single_values(method, run=history.run))
            for player_name, terms in turns:
                history.note(step, {f"{player_name}.{term}": value for term, value in terms.items()})

        done = step + 1
        finished = done == spec.n_steps
        saving = finished or done % spec.checkpoint_every == 0
        if saving or done % spec.log_every == 0:
            meter.terms(history.flush(done))
            rates = {f"{name}.rate": float(p.optimizer.param_groups[0]["lr"]) for name, p in players.items()}
            history.add(done, "train", rates)
            _refuse_lost_scales(players, run=history.run)
        if choice is not None and rank() == 0 and (finished or done % spec.select.every == 0):
            with in_eager(spec):
                value = watch.measure(method, choice)
            history.add(done, "val", {spec.select.metric: value})
            if is_better(value, best_value, select=spec.select, choice=choice):
                best_step, best_value = done, value
                resume.save_best(done, finished_state(method))
        if rank() == 0 and (finished or done % spec.sample_every == 0):
            with in_eager(spec):
                watch.picture(method, samples / f"step-{done:06d}.png")
        if saving:
            state = {
                "method": method.state_dict(),
                "players": {name: player.state() for name, player in players.items()},
                "history": history.state(),
                "best_step": best_step,
                "best_value": best_value,
            }
            resume.save(done, state, best_step=best_step)
        meter.tick(done, sampler.batch_size)
        if count is not None:
            count()
    meter.close()
    wait_for_all()
    return finished_state(method) if best_step is None else resume.load_best(best_step)


def step_seed(seed: int, step: int, rank: int | None = None) -> int:
    """Seed of torch's generators for one iteration of one process; without a rank, one for all processes."""
    key = f"{seed}/{step}" if rank is None else f"{seed}/{step}/{rank}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")


def _refuse_lost_scales(players: Mapping[str, Player], *, run: str) -> None:
    """End a training whose half-precision gradients overflow at every scale.

    Raises:
        HepipeError: Names the player.
    """
    for name, player in players.items():
        if player.scaler.is_enabled() and player.scaler.get_scale() < LEAST_SCALE:
            raise HepipeError(
                f"run {run}: gradients of {name} overflow fp16 step after step, even at a loss scale of "
                f"{player.scaler.get_scale():.3g}, so it no longer learns; set training.precision to bf16 or fp32"
            )


def _fit(
    method: Any, sampler: Sampler, *, spec: TrainingSpec, device: torch.device, watch: Watch, samples: Path
) -> dict[str, Tensor]:
    """Let a method without players see every training tile once, in whole crops of the sampler."""
    tiles = (batch.to(device) for batch in batches(sampler, range(sampler.steps_per_epoch), workers=spec.workers))
    method.fit(tiles)
    if rank() == 0:
        watch.picture(method, samples / "step-000000.png")
    return finished_state(method)


def _terms(turns: list[Turn], shares: list[float]) -> tuple[list[str], Float[Tensor, " t"]]:
    """Names and sums over the pieces of logs and loss of one turn, each times its share.

    The loss comes last, for the first term that is not finite is the one to name.
    """
    rows = [{**turn.logs, "loss": turn.loss} for turn in turns]
    shared = torch.tensor(shares, device=turns[0].loss.device)
    values = [torch.stack([row[name].detach().float().mean() for row in rows]) for name in rows[0]]
    return list(rows[0]), torch.stack(values) @ shared
