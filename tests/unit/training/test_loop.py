import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam

from hepipe.dataset.batch import Batch
from hepipe.dataset.tiles import Sampler, SplitTiles
from hepipe.errors import HepipeError
from hepipe.models.finished import finished_state
from hepipe.models.method import Average, Progress, Turn
from hepipe.specs.training import TrainingSpec
from hepipe.training.history import History
from hepipe.training.loop import iterate, make_players, train_method
from hepipe.training.resume import ResumeFolder
from hepipe.training.watch import Watch, find_choice

CPU = torch.device("cpu")


class Duel(nn.Module):
    """Two players, a pool, a spectral norm, batch statistics, dropout and an average: what a checkpoint must hold."""

    def __init__(self, *, clip: float | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.ReLU(), nn.Conv2d(4, 3, 1)
        )
        self.critic = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 1, 3))
        self.slow = copy.deepcopy(self.generator).requires_grad_(False)
        self.pool: list[Tensor] = []
        self.clip = clip

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        return {"pool": self.pool}

    def set_extra_state(self, state: dict[str, list[Tensor]]) -> None:
        self.pool = list(state["pool"])

    def players(self):
        return {"critic": self.critic, "generator": self.generator}

    def optimizer(self, player):
        return Adam(self.players()[player].parameters(), lr=1e-2, betas=(0.5, 0.999))

    def rate(self, player, at):
        return 1 - at.step / at.n_steps

    def averages(self):
        return {"slow": Average("generator", self.generator, self.slow, lambda at: 0.9)}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        fake = self.generator(batch.he)
        self.pool = [*self.pool, fake.detach()[0].clone()][-3:]
        old = self.pool[int(torch.randint(len(self.pool), ()))][None]
        yield Turn(
            "critic", (self.critic(old) ** 2).mean() + ((self.critic(batch.ihc) - 1) ** 2).mean(), clip=self.clip
        )
        close = (fake - batch.ihc).abs().mean()
        loss = ((self.critic(fake) - 1) ** 2).mean() + close
        yield Turn("generator", loss, logs={"close": close})

    def stain(self, tiles, *, seeds, to="ihc"):
        return self.slow(tiles)


class Line(nn.Module):
    """One convolution under a squared error, without anything random."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Conv2d(3, 3, 1)

    def players(self):
        return {"net": self.net}

    def optimizer(self, player):
        return SGD(self.net.parameters(), lr=0.1)

    def rate(self, player, at):
        return 1.0

    def averages(self):
        return {}

    def turns(self, batch, at):
        yield Turn("net", ((self.net(batch.he) - batch.ihc) ** 2).mean())

    def stain(self, tiles, *, seeds, to="ihc"):
        return self.net(tiles)


class Killed(Exception):
    """Stands for a SIGKILL."""


def killing(method: nn.Module, *, step: int, turn: int) -> nn.Module:
    """The same method, dying before a turn of a step."""
    real = method.turns

    def turns(batch, at):
        for number, given in enumerate(real(batch, at)):
            if (at.step, number) == (step, turn):
                raise Killed
            yield given

    method.turns = turns
    return method


@pytest.fixture
def index(make_index):
    return make_index({"train": 5, "val": 3})


def train(method, index, tmp_path, *, key="k", folder="run", **changes):
    spec = TrainingSpec.model_validate(
        {
            "n_steps": 8,
            "batch_size": 2,
            "crop_px": 8,
            "checkpoint_every": 3,
            "log_every": 2,
            "sample_every": 4,
            "workers": 1,
            "select": {"every": 2},
            **changes,
        }
    )
    sampler = Sampler(SplitTiles(index, "train"), batch_size=spec.batch_size, crop_px=spec.crop_px, flips=True, seed=3)
    history = History("run")
    state = train_method(
        method,
        sampler,
        spec=spec,
        seed=3,
        device=CPU,
        watch=Watch(SplitTiles(index, "val"), crop_px=8, max_tiles=2, batch_size=2, device=CPU),
        choice=find_choice(spec.select, crop_px=8, where="runs.run.training"),
        resume=ResumeFolder(tmp_path / folder / "resume", key=key),
        history=history,
        samples=tmp_path / folder / "samples",
    )
    return state, list(history.rows())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("metric", ["last", "mae"])
@pytest.mark.parametrize(("step", "turn"), [(2, 1), (5, 0), (7, 1)])
def test_a_training_killed_between_turns_ends_with_identical_weights_and_history(index, tmp_path, step, turn, metric):
    select = {"metric": metric, "every": 2}
    whole, rows = train(Duel(), index, tmp_path, folder="whole", select=select)
    with pytest.raises(Killed):
        train(killing(Duel(), step=step, turn=turn), index, tmp_path, select=select)
    resumed, resumed_rows = train(Duel(), index, tmp_path, select=select)
    assert equal(whole, resumed)
    assert rows == resumed_rows


def test_a_resumed_training_does_not_repeat_the_steps_that_are_done(index, tmp_path):
    with pytest.raises(Killed):
        train(killing(Duel(), step=7, turn=1), index, tmp_path)
    with pytest.raises(Killed):
        train(killing(Duel(), step=6, turn=0), index, tmp_path)
    train(killing(Duel(), step=5, turn=0), index, tmp_path)


def test_a_resume_file_of_another_configuration_is_not_continued(index, tmp_path):
    with pytest.raises(Killed):
        train(killing(Duel(), step=7, turn=1), index, tmp_path, key="other")
    with pytest.raises(Killed):
        train(killing(Duel(), step=0, turn=0), index, tmp_path)


def test_another_seed_order_of_threads_changes_nothing(index, tmp_path):
    one, _ = train(Duel(), index, tmp_path, folder="a", workers=0)
    other, _ = train(Duel(), index, tmp_path, folder="b", workers=3)
    assert equal(one, other)


def test_the_finished_model_has_no_pool(index, tmp_path):
    state, _ = train(Duel(), index, tmp_path)
    assert not [name for name in state if "extra_state" in name]
    assert any(name.startswith("slow.") for name in state)


def test_pieces_of_a_batch_step_like_the_whole(index):
    batch = Sampler(SplitTiles(index, "train"), batch_size=5, crop_px=8, flips=True, seed=3).batch(0)
    at = Progress(0, 1, 1)
    ends = []
    for pieces in (1, 2, 5):
        method = Line()
        players = make_players(method, precision="fp32", device=CPU)
        terms = dict(iterate(method, batch, at, players, pieces=pieces))
        ends.append([terms["net"]["loss"], *(p.detach() for p in method.net.parameters())])
    for other in ends[1:]:
        for a, b in zip(ends[0], other, strict=True):
            torch.testing.assert_close(a, b)


def test_the_rate_scales_the_base_rate_and_an_average_follows_its_player(index):
    batch = Sampler(SplitTiles(index, "train"), batch_size=2, crop_px=8, flips=True, seed=3).batch(0)
    method = Duel()
    players = make_players(method, precision="fp32", device=CPU)
    before = {name: p.detach().clone() for name, p in method.slow.named_parameters()}
    assert [name for name, _ in iterate(method, batch, Progress(6, 8, 3), players)] == ["critic", "generator"]
    assert players["critic"].optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 / 4)
    now = dict(method.generator.named_parameters())
    for name, slow in method.slow.named_parameters():
        torch.testing.assert_close(slow.detach(), 0.9 * before[name] + 0.1 * now[name].detach())
    assert torch.equal(method.slow[1].num_batches_tracked, method.generator[1].num_batches_tracked)


def test_gradients_are_clipped_to_the_norm_that_the_turn_names(index):
    batch = Sampler(SplitTiles(index, "train"), batch_size=2, crop_px=8, flips=True, seed=3).batch(0)
    norms = []

    class Watching(SGD):
        def step(self, closure=None):
            norms.append(float(torch.cat([p.grad.flatten() for p in self.param_groups[0]["params"]]).norm()))
            return super().step(closure)

    method = Duel(clip=0.01)
    method.optimizer = lambda player: Watching(method.players()[player].parameters(), lr=0.1)
    list(iterate(method, batch, Progress(0, 8, 3), make_players(method, precision="fp32", device=CPU)))
    assert norms[0] == pytest.approx(0.01, rel=1e-3)
    assert norms[1] > 0.01


def test_a_second_turn_in_bf16_sees_the_weights_after_the_first_step(index):
    batch = Sampler(SplitTiles(index, "train"), batch_size=2, crop_px=8, flips=True, seed=3).batch(0)
    seen = {}

    class Twice(Line):
        def turns(self, batch, at):
            yield Turn("net", (self.net(batch.he).float() ** 2).mean())
            seen["second"] = self.net(batch.he)
            yield Turn("net", (seen["second"].float() ** 2).mean())

    method = Twice()
    method.optimizer = lambda player: SGD(method.net.parameters(), lr=0.5)
    turns = iterate(
        method, batch, Progress(0, 8, 3), make_players(method, precision="bf16", device=CPU), precision="bf16"
    )
    next(turns)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fresh = copy.deepcopy(method.net)(batch.he)
    next(turns)
    assert seen["second"].dtype == torch.bfloat16
    assert torch.equal(seen["second"], fresh)


def test_pieces_that_disagree_on_the_turn_are_an_error(index):
    batch = Sampler(SplitTiles(index, "train"), batch_size=4, crop_px=8, flips=True, seed=3).batch(0)

    class Moody(Line):
        def turns(self, batch, at):
            if batch.tile_ids[0] == first:
                yield Turn("net", self.net(batch.he).mean())

    first = batch.tile_ids[0]
    method = Moody()
    with pytest.raises(ValueError, match="disagree on whose turn it is"):
        list(iterate(method, batch, Progress(0, 1, 1), make_players(method, precision="fp32", device=CPU), pieces=2))


def test_a_term_that_becomes_nan_stops_the_training_by_name(index, tmp_path):
    class Broken(Line):
        def turns(self, batch, at):
            loss = self.net(batch.he).mean()
            bad = loss.detach() / (0.0 if at.step == 3 else 1.0)
            yield Turn("net", loss, logs={"contrast": bad - bad if at.step == 3 else bad})

    with pytest.raises(HepipeError, match=r"run run: net.contrast became nan at step 3"):
        train(Broken(), index, tmp_path)


def test_the_chosen_checkpoint_is_the_best_on_validation_tiles(index, tmp_path):
    class Leaving(Line):
        def rate(self, player, at):
            return 1.0 if at.step < 4 else -5.0

    state, rows = train(Leaving(), index, tmp_path, select={"metric": "mae", "every": 2}, n_steps=8)
    values = {row["step"]: row["value"] for row in rows if row["phase"] == "val"}
    assert sorted(values) == [2, 4, 6, 8]
    best = min(values, key=values.__getitem__)
    assert best == 4
    until, _ = train(Line(), index, tmp_path, folder="until", n_steps=4)
    assert equal(state, until)


def test_pictures_of_validation_tiles_lie_beside_the_model(index, tmp_path):
    from PIL import Image

    train(Line(), index, tmp_path)
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step-000004.png", "step-000008.png"]
    with Image.open(tmp_path / "run" / "samples" / names[0]) as picture:
        assert picture.size == (3 * 8, 2 * 8)


def test_learning_lowers_the_loss(index, tmp_path):
    _, rows = train(Line(), index, tmp_path, n_steps=60)
    losses = [row["value"] for row in rows if row["name"] == "net.loss"]
    assert losses[-1] < losses[0] / 4


def test_training_leaves_extra_state_out_of_the_finished_state_only():
    method = Duel()
    assert "_extra_state" in method.state_dict()
    assert "_extra_state" not in finished_state(method)
