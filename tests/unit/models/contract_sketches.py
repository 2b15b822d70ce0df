"""The training steps of eight published models, in small; mypy checks them against the contract.

The networks are single convolutions; the order of turns, what is frozen, averaged, pooled or drawn follows the papers.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer, RAdam

from hepipe.dataset.batch import Batch
from hepipe.models.method import Average, Frozen, Part, Progress, Turn


def conv(inputs: int, outputs: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def critic(inputs: int = 3) -> nn.Sequential:
    return nn.Sequential(conv(inputs, 4), nn.LeakyReLU(0.2), nn.AvgPool2d(2), conv(4, 1))


def frozen_copy(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).requires_grad_(False)


def linear_decay(epoch: int, *, constant: int, decay: int) -> float:
    return 1.0 - max(0, epoch + 1 - constant) / (decay + 1)


class Pool:
    """Earlier fakes of one domain; state for checkpoints only."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: list[Tensor] = []

    def swap(self, images: Tensor) -> Tensor:
        given = []
        for image in images:
            if len(self.images) < self.size:
                self.images.append(image.clone())
                given.append(image)
            elif torch.rand(()) < 0.5:
                place = int(torch.randint(len(self.images), ()))
                given.append(self.images[place])
                self.images[place] = image.clone()
            else:
                given.append(image)
        return torch.stack(given)


class Sketch(nn.Module):
    """The short methods, the same for most sketches."""

    def players(self) -> Mapping[str, nn.Module]:
        return dict(self.named_children())

    def optimizer(self, player: str) -> Optimizer:
        return Adam(self.players()[player].parameters(), lr=2e-4, betas=(0.5, 0.999))

    def rate(self, player: str, at: Progress) -> float:
        return 1.0

    def averages(self) -> Mapping[str, Average]:
        return {}


class Cssp2p(Sketch):
    """One forward of G; D on the detached output; G with the D that has just stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = conv(3)
        self.discriminator = critic(6)

    def optimizer(self, player: str) -> Optimizer:
        return AdamW(self.players()[player].parameters(), lr=5e-5, betas=(0.5, 0.999), weight_decay=1e-5)

    def rate(self, player: str, at: Progress) -> float:
        return 0.995 ** int(at.epoch)

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        he, real = (batch.he - 0.5) / 0.25, (batch.ihc + 1) / 2
        fake = self.generator(he).sigmoid()

        caught = F.softplus(self.discriminator(torch.cat([fake.detach(), he], 1))).mean()
        trusted = F.softplus(-self.discriminator(torch.cat([real, he], 1))).mean()
        yield Turn("discriminator", (caught + trusted) / 2)

        adversarial = F.softplus(-self.discriminator(torch.cat([fake, he], 1))).mean()
        pyramid = (fake - real).abs().mean() + (F.avg_pool2d(fake, 2) - F.avg_pool2d(real, 2)).abs().mean()
        css = -torch.log((F.cosine_similarity(fake, he, dim=1).mean((1, 2)) + 1) / 2 + 1e-8).mean()
        yield Turn("generator", adversarial + pyramid + css, logs={"pyramid": pyramid, "css": css})

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        return self.generator((tiles - 0.5) / 0.25).sigmoid() * 2 - 1


class CycleGan(Sketch):
    """Both generators in one step, then both discriminators in one, on pooled fakes; `ihc` is drawn independently."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({"ihc": conv(3), "he": conv(3)})
        self.discriminators = nn.ModuleDict({"ihc": critic(), "he": critic()})
        self.pools = {"ihc": Pool(2), "he": Pool(2)}

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        return {name: pool.images for name, pool in self.pools.items()}

    def set_extra_state(self, state: Mapping[str, list[Tensor]]) -> None:
        for name, images in state.items():
            self.pools[name].images = list(images)

    def rate(self, player: str, at: Progress) -> float:
        return linear_decay(int(at.epoch), constant=100, decay=100)

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        to_ihc, to_he = self.generators["ihc"], self.generators["he"]
        real = {"he": batch.he, "ihc": batch.ihc}
        fake = {"ihc": to_ihc(batch.he), "he": to_he(batch.ihc)}

        adversarial = sum_of((self.discriminators[name](fake[name]) - 1).square().mean() for name in fake)
        cycle = (to_he(fake["ihc"]) - batch.he).abs().mean() + (to_ihc(fake["he"]) - batch.ihc).abs().mean()
        identity = (to_ihc(batch.ihc) - batch.ihc).abs().mean() + (to_he(batch.he) - batch.he).abs().mean()
        yield Turn("generators", adversarial + 10 * cycle + 5 * identity, logs={"cycle": cycle})

        losses = []
        for name, pool in self.pools.items():
            judge = self.discriminators[name]
            old = pool.swap(fake[name].detach())
            losses.append(0.5 * ((judge(real[name]) - 1).square().mean() + judge(old).square().mean()))
        yield Turn("discriminators", sum_of(losses))

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        return self.generators[to](tiles)


class SynDiff(Sketch):
    """Diffusive and translating critics in one step, with R1 every tenth; then all four generators in one."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({k: conv(6) for k in ("he", "ihc")} | {k: conv(3) for k in ("to_he", "to_ihc")})
        self.critics = nn.ModuleDict(
            {k: critic(6) for k in ("he", "ihc")} | {k: critic(3) for k in ("to_he", "to_ihc")}
        )
        self.average = frozen_copy(self.generators)
        self.alpha = torch.tensor([1.0, 0.5, 0.08, 0.003, 4e-5])

    def players(self) -> Mapping[str, nn.Module]:
        return {"critics": self.critics, "generators": self.generators}

    def optimizer(self, player: str) -> Optimizer:
        rate = 1.6e-4 if player == "generators" else 1e-4
        return Adam(self.players()[player].parameters(), lr=rate, betas=(0.5, 0.9))

    def rate(self, player: str, at: Progress) -> float:
        base = 1.6e-4 if player == "generators" else 1e-4
        cosine = (1 + math.cos(math.pi * int(at.epoch) / at.n_epochs)) / 2
        return (1e-5 + (base - 1e-5) * cosine) / base

    def averages(self) -> Mapping[str, Average]:
        return {"generators": Average("generators", self.generators, self.average, decay=lambda at: 0.999)}

    def _noised(self, clean: Tensor) -> tuple[Tensor, Tensor]:
        t = torch.randint(4, (len(clean),), device=clean.device)
        alpha = self.alpha.to(clean.device)
        now, next_ = alpha[t].view(-1, 1, 1, 1), alpha[t + 1].view(-1, 1, 1, 1)
        x_t = now.sqrt() * clean + (1 - now).sqrt() * torch.randn_like(clean)
        keep = next_ / now
        return x_t, keep.sqrt() * x_t + (1 - keep).sqrt() * torch.randn_like(clean)

    def _fakes(self, real: Mapping[str, Tensor], noisy: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], ...]:
        made = {"he": self.generators["to_he"](real["ihc"]), "ihc": self.generators["to_ihc"](real["he"])}
        guess = {  # the condition is a synthetic source of the same tile
            "he": self.generators["he"](torch.cat([noisy["he"], made["ihc"]], 1)),
            "ihc": self.generators["ihc"](torch.cat([noisy["ihc"], made["he"]], 1)),
        }
        return made, guess

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        real = {"he": batch.he, "ihc": batch.ihc}
        pairs = {name: self._noised(image) for name, image in real.items()}
        noisy = {name: after for name, (_, after) in pairs.items()}

        with torch.no_grad():
            made, guess = self._fakes(real, noisy)
        losses = []
        for name in real:
            x_t = pairs[name][0].requires_grad_(at.step % 10 == 0)
            score = self.critics[name](torch.cat([x_t, noisy[name]], 1))
            caught = self.critics[name](torch.cat([guess[name], noisy[name]], 1))
            losses += [F.softplus(-score).mean(), F.softplus(caught).mean()]
            if at.step % 10 == 0:
                (slope,) = torch.autograd.grad(score.float().sum(), x_t, create_graph=True)
                losses.append(0.5 * slope.square().sum((1, 2, 3)).mean())
            translator = self.critics[f"to_{name}"]
            losses += [F.softplus(-translator(real[name])).mean(), F.softplus(translator(made[name])).mean()]
        yield Turn("critics", sum_of(losses))

        made, guess = self._fakes(real, noisy)
        losses = []
        for name, other in (("he", "ihc"), ("ihc", "he")):
            losses.append(F.softplus(-self.critics[name](torch.cat([guess[name], noisy[name]], 1))).mean())
            losses.append(F.softplus(-self.critics[f"to_{name}"](made[name])).mean())
            losses.append(0.5 * (self.generators[f"to_{other}"](made[name]) - real[other]).abs().mean())
            losses.append(0.5 * (guess[name] - real[name]).abs().mean())
        yield Turn("generators", sum_of(losses))

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        noise = [torch.randn(tiles.shape[1:], generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        assert isinstance(self.average, nn.ModuleDict)
        return self.average[to](torch.cat([torch.stack(noise).to(tiles), tiles], 1))


class Consistency(Sketch):
    """Distilled: a frozen teacher from another run, a target network and a sampling average, both averages."""

    def __init__(self, teacher: Part) -> None:
        super().__init__()
        self.teacher = Frozen(conv(6))
        self.teacher.module.load_state_dict(dict(teacher.state))
        self.student = nn.Sequential(conv(6, 8), nn.Dropout(0.1), conv(8))
        self.target = frozen_copy(self.student)
        self.average = frozen_copy(self.student)
        self.sigmas = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 40).pow(7)

    def players(self) -> Mapping[str, nn.Module]:
        return {"student": self.student}

    def optimizer(self, player: str) -> Optimizer:
        return RAdam(self.student.parameters(), lr=1e-5)

    def averages(self) -> Mapping[str, Average]:
        return {
            "target": Average("student", self.student, self.target, decay=lambda at: 0.95),
            "sampling": Average("student", self.student, self.average, decay=lambda at: 0.9999),
        }

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        clean, he = batch.ihc, batch.he
        sigmas = self.sigmas.to(clean.device)
        i = torch.randint(39, (len(clean),), device=clean.device)
        t, u = sigmas[i].view(-1, 1, 1, 1), sigmas[i + 1].view(-1, 1, 1, 1)
        x_t = clean + t * torch.randn_like(clean)
        with torch.no_grad():
            slope = (x_t - self.teacher(torch.cat([x_t / t, he], 1))) / t
            x_u = x_t + (u - t) * slope
            slope_u = (x_u - self.teacher(torch.cat([x_u / u, he], 1))) / u
            x_u = x_t + (u - t) * (slope + slope_u) / 2

        state = torch.get_rng_state()  # the same dropout for both calls
        guess = self.student(torch.cat([x_t / t, he], 1))
        torch.set_rng_state(state)
        with torch.no_grad():
            aim = self.target(torch.cat([x_u / u, he], 1))
        yield Turn("student", (guess - aim).square().mean(), clip=1.0)

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        noise = [torch.randn(tiles.shape[1:], generator=torch.Generator().manual_seed(int(s))) for s in seeds]
        return self.average(torch.cat([torch.stack(noise).to(tiles), tiles], 1)).clamp(-1, 1)


class PspStain(Sketch):
    """Generator and patch heads step together; gradients pass through a frozen segmenter to the generator."""

    def __init__(self, segmenter: Part) -> None:
        super().__init__()
        self.segmenter = Frozen(conv(3, 2))
        self.segmenter.module.load_state_dict(dict(segmenter.state))
        self.generator = nn.ModuleDict({"stem": conv(3, 8), "head": conv(8, 3), "patches": nn.Linear(8, 4)})
        self.discriminator = critic()

    def players(self) -> Mapping[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    def optimizer(self, player: str) -> Optimizer:
        rate = 1e-4 if player == "generator" else 5e-6
        return Adam(self.players()[player].parameters(), lr=rate, betas=(0.5, 0.999))

    def _features(self, image: Tensor, places: Tensor) -> Tensor:
        features = self.generator["stem"](image).flatten(2)[:, :, places].transpose(1, 2)
        return F.normalize(self.generator["patches"](features), dim=2)

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        fake = self.generator["head"](self.generator["stem"](batch.he)).tanh()

        caught = self.discriminator(fake.detach()).square().mean()
        trusted = (self.discriminator(batch.ihc) - 1).square().mean()
        yield Turn("discriminator", (caught + trusted) / 2)

        adversarial = (self.discriminator(fake) - 1).square().mean()
        places = torch.randperm(fake.shape[2] * fake.shape[3], device=fake.device)[:16]
        query, key = self._features(fake, places), self._features(batch.he, places).detach()
        contrast = -(query * key).sum(2).mean() / 0.07
        pseudo = (torch.cat([batch.ihc, fake.detach()]).mean(1) < 0).long()
        prototypes = F.cross_entropy(self.segmenter(torch.cat([fake, batch.ihc])), pseudo)
        optical = (fake.mean((1, 2, 3)) - batch.ihc.mean((1, 2, 3))).square().mean()
        yield Turn("generator", adversarial + contrast + optical + 2.5 * prototypes, logs={"contrast": contrast})

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        return self.generator["head"](self.generator["stem"](tiles)).tanh()


class BciStainer(Sketch):
    """A comparator that trains in the first third of the epochs only, and afterwards judges the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.comparator = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.comparator.append(nn.Linear(8, 4))
        self.generator = nn.ModuleDict(
            {"picture": nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8)), "level": critic()}
        )
        self.discriminator = critic()
        self.average = frozen_copy(self.generator)

    def players(self) -> Mapping[str, nn.Module]:
        return {"comparator": self.comparator, "generator": self.generator, "discriminator": self.discriminator}

    def optimizer(self, player: str) -> Optimizer:
        parameters = self.players()[player].parameters()
        if player == "comparator":
            return AdamW(parameters, lr=1e-4, betas=(0.9, 0.99))
        return AdamW(parameters, lr=1e-3, betas=(0.5, 0.9), weight_decay=0.05)

    def rate(self, player: str, at: Progress) -> float:
        share = at.epoch / at.n_epochs
        if player == "comparator":
            return 1.0
        return 3 * share if share < 1 / 3 else (1 + math.cos(math.pi * (1.5 * share - 0.5))) / 2

    def averages(self) -> Mapping[str, Average]:
        def decay(at: Progress) -> float:
            return 0.0 if at.step < 102 else min(1 - 1 / (at.step - 99), 0.99)

        return {"generator": Average("generator", self.generator, self.average, decay)}

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        trains_comparator = 3 * at.epoch < at.n_epochs
        fake = self.generator["picture"](batch.he).tanh()

        if trains_comparator:
            self.comparator.train()
            yield Turn("comparator", F.cross_entropy(self.comparator(batch.ihc), batch["score"]))

        caught = (self.discriminator(fake.detach()) - 0.1 * torch.rand(())).square().mean()
        trusted = (self.discriminator(batch.ihc) - 1 + 0.1 * torch.rand(())).square().mean()
        yield Turn("discriminator", (caught + trusted) / 2)

        loss = (self.discriminator(fake) - 1).square().mean() + 10 * (fake - batch.ihc).abs().mean()
        loss = loss + self.generator["level"](batch.he).square().mean()
        if not trains_comparator:
            self.comparator.eval()
            latents = self.comparator[:-1](torch.cat([fake, batch.ihc])).chunk(2)
            loss = loss + 1 - F.cosine_similarity(*latents).mean()
        yield Turn("generator", loss)

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        assert isinstance(self.average, nn.ModuleDict)
        return self.average["picture"](tiles).tanh()


class AtstNet(Sketch):
    """Paired masks and counts beside an unpaired cycle; a frozen counter that gives numbers without gradient."""

    def __init__(self, counter: Part) -> None:
        super().__init__()
        self.counter = Frozen(conv(3, 1))
        self.counter.module.load_state_dict(dict(counter.state))
        self.generators = nn.ModuleDict({"ihc": nn.Sequential(conv(3), nn.BatchNorm2d(3), conv(3)), "he": conv(3)})
        self.discriminators = nn.ModuleDict({"ihc": critic(), "he": critic()})
        self.pools = {"ihc": Pool(2), "he": Pool(2)}

    def players(self) -> Mapping[str, nn.Module]:
        return {"generators": self.generators, "discriminators": self.discriminators}

    def rate(self, player: str, at: Progress) -> float:
        return 1.0 - max(0.0, int(at.epoch) + 1 - at.n_epochs / 2) / (at.n_epochs / 2)

    def get_extra_state(self) -> dict[str, list[Tensor]]:
        return {name: pool.images for name, pool in self.pools.items()}

    def set_extra_state(self, state: Mapping[str, list[Tensor]]) -> None:
        for name, images in state.items():
            self.pools[name].images = list(images)

    def _by_crops(self, tiles: Tensor) -> Tensor:
        """Crops go one at a time, so batch norm sees one crop."""
        half = tiles.shape[3] // 2
        return torch.cat([self.generators["ihc"](part) for part in (tiles[..., :half], tiles[..., half:])], 3)

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        he, loose = batch.he, batch["loose_ihc"]
        fake = {"ihc": self._by_crops(he), "he": self.generators["he"](loose)}
        cycle = (self.generators["he"](fake["ihc"]) - he).abs().mean() + (
            self._by_crops(fake["he"]) - loose
        ).abs().mean()
        adversarial = sum_of((self.discriminators[k](fake[k]).mean((1, 2, 3)) - 1).square().mean() for k in fake)
        mask = (-10 * fake["ihc"].mean(1)).sigmoid()
        soft = (mask - batch["dab_mask"].float()).square().mean()
        with torch.no_grad():
            counted = self.counter(fake["ihc"]).mean((1, 2, 3))
        nuclei = (counted - batch["nuclei_count"]).abs().mean()
        yield Turn("generators", adversarial + 5 * cycle + 50 * soft + nuclei, logs={"nuclei": nuclei})

        losses = []
        for name, real in (("he", he), ("ihc", loose)):
            judge, old = self.discriminators[name], self.pools[name].swap(fake[name].detach())
            losses += [(judge(real).mean((1, 2, 3)) - 1).square().mean(), judge(old).mean((1, 2, 3)).square().mean()]
        yield Turn("discriminators", 0.5 * sum_of(losses))

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        return self._by_crops(tiles)


class Umdst(Sketch):
    """One generator for all stains; rho is clipped to [0, 1] after each of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.ModuleDict({"picture": conv(3), "code": nn.Linear(2, 3)})
        self.generator.register_parameter("rho", nn.Parameter(torch.full((3,), 0.9999)))
        self.discriminators = nn.ModuleDict({"global": critic(), "local": critic()})

    def optimizer(self, player: str) -> Optimizer:
        return Adam(self.players()[player].parameters(), lr=1e-4, betas=(0.5, 0.999), weight_decay=1e-4)

    def rate(self, player: str, at: Progress) -> float:
        return min(1.0, 2 - 2 * at.step / at.n_steps)

    def _stained(self, tiles: Tensor, code: Tensor) -> Tensor:
        x = self.generator["picture"](tiles)
        rho = self.generator.get_parameter("rho").view(-1, 1, 1)
        mixed = rho * F.instance_norm(x) + (1 - rho) * F.layer_norm(x, x.shape[1:])
        return (mixed * self.generator["code"](code)[:, :, None, None]).tanh()

    def turns(self, batch: Batch, at: Progress) -> Iterator[Turn]:
        real = torch.cat([batch.he, batch.ihc])
        stain = torch.tensor([0] * len(batch) + [1] * len(batch), device=real.device)
        code = F.one_hot(stain, 2).float().clamp(min=0.05)
        aim = code.roll(1, 0)  # the stain of the next sample drawn; may be its own
        fake = self._stained(real, aim)

        losses = []
        for judge in self.discriminators.values():
            losses += [(judge(real) - 1).square().mean(), judge(fake.detach()).square().mean()]
        yield Turn("discriminators", 10 * sum_of(losses))

        adversarial = sum_of((judge(fake) - 1).square().mean() for judge in self.discriminators.values())
        cycle = (self._stained(fake, code) - real).abs().mean() + (self._stained(real, code) - real).abs().mean()
        yield Turn("generator", 10 * adversarial + 10 * cycle)
        with torch.no_grad():
            self.generator.get_parameter("rho").clamp_(0, 1)

    def stain(self, tiles: Tensor, *, seeds: Tensor, to: str = "ihc") -> Tensor:
        code = torch.tensor([0.0, 1.0] if to == "ihc" else [1.0, 0.0]).to(tiles)
        return self._stained(tiles, code.expand(len(tiles), 2))


def sum_of(losses: Any) -> Tensor:
    return torch.stack(list(losses)).sum()
