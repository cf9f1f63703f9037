"""The one interface that everything downstream sees: next-city logits, activations, logits under edits."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedRootModule

from mesaprobe.errors import UserError
from mesaprobe.models.config import UNKNOWN
from mesaprobe.models.gpt import TourGPT
from mesaprobe.problems import Problem

Edit = Callable[..., Tensor]
"""A TransformerLens hook function: `edit(activation, hook)` returns the activation that replaces it."""


class Subject(ABC):
    """A network under analysis. A *prefix* is the tour named so far; it starts at city 0.

    `sequential` says that one pass over a tour answers every state along it (causal and prefix attention);
    otherwise each state needs a pass of its own (bidirectional attention).
    """

    name: str
    problem: Problem
    sequential: bool
    description: Mapping[str, Any]
    """What is known of its making: parameters, layers, d_model, attention, teacher, arm, path."""

    @abstractmethod
    def next_city_logits(
        self, features: Float[Tensor, "batch n f"], prefixes: Int[Tensor, "batch t"]
    ) -> Float[Tensor, "batch n"]:
        """Logits of the city that follows each prefix."""

    @abstractmethod
    def logits(self, features: Float[Tensor, "batch n f"], tours: Int[Tensor, "batch t"]) -> Float[Tensor, "batch t n"]:
        """Logits after every prefix of the tours: entry i answers the state `tours[:, :i + 1]`."""

    @abstractmethod
    def activations(
        self, features: Float[Tensor, "batch n f"], prefixes: Int[Tensor, "batch t"], hooks: Sequence[str]
    ) -> dict[str, Tensor]:
        """What the named hook points saw in one pass over each prefix, detached, by hook name."""

    @abstractmethod
    def edited_logits(
        self,
        features: Float[Tensor, "batch n f"],
        prefixes: Int[Tensor, "batch t"],
        edits: Mapping[str, Edit],
    ) -> Float[Tensor, "batch n"]:
        """Logits of the next city while each named hook point is edited."""

    @property
    @abstractmethod
    def hook_names(self) -> tuple[str, ...]:
        """All hook points that can be read and edited."""

    @property
    @abstractmethod
    def city_positions(self) -> tuple[int, ...]:
        """Where the token of each city stands in the sequence."""

    @abstractmethod
    def decode_position(self, length: int) -> int:
        """Where the next city is answered after a prefix of `length` cities."""

    @abstractmethod
    def random_twin(self, seed: int) -> "Subject":
        """The same network with freshly drawn weights."""

    @property
    @abstractmethod
    def weights_hash(self) -> str:
        """A hash of the network's weights: two subjects with the same one are the same network."""


class ModuleSubject(Subject):
    """A `HookedRootModule` whose `forward(features, tour)` gives `[batch, position, n]` logits.

    The module is put into evaluation mode. Positions of the logits are the tour's (length t) or the whole
    sequence's, of which `decode_positions` picks the tour's; a dry run settles which and checks the shapes.
    """

    sequential = True

    def __init__(
        self,
        module: HookedRootModule,
        problem: Problem,
        *,
        city_positions: Sequence[int] | None = None,
        decode_positions: Sequence[int] | None = None,
        name: str = "subject",
        description: Mapping[str, Any] | None = None,
        make_twin: Callable[[int], HookedRootModule] | None = None,
    ) -> None:
        n = problem.n
        self.module, self.problem, self.name = module.eval(), problem, name
        self.description = dict(description or {})
        self.description.setdefault("parameters", sum(p.numel() for p in module.parameters()))
        self._cities = tuple(city_positions if city_positions is not None else range(n))
        self._decode = tuple(decode_positions if decode_positions is not None else range(n, 2 * n))
        self._make_twin = make_twin
        self._dry_run()

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def hook_names(self) -> tuple[str, ...]:
        return tuple(self.module.hook_dict)

    @property
    def city_positions(self) -> tuple[int, ...]:
        return self._cities

    def decode_position(self, length: int) -> int:
        return self._decode[length - 1]

    @property
    def weights_hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def next_city_logits(self, features: Tensor, prefixes: Tensor) -> Tensor:
        return self.logits(features, prefixes)[:, -1]

    def logits(self, features: Tensor, tours: Tensor) -> Tensor:
        with torch.no_grad():
            return self._tour_logits(self.module(*self._inputs(features, tours)), tours.shape[1])

    def activations(self, features: Tensor, prefixes: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
        self._check_hooks(hooks)
        wanted = set(hooks)
        with torch.no_grad():
            _, cache = self.module.run_with_cache(
                *self._inputs(features, prefixes), names_filter=lambda name: name in wanted
            )
        return {name: cache[name] for name in hooks}

    def edited_logits(self, features: Tensor, prefixes: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        self._check_hooks(list(edits))
        with torch.no_grad():
            logits = self.module.run_with_hooks(*self._inputs(features, prefixes), fwd_hooks=list(edits.items()))
        return self._tour_logits(logits, prefixes.shape[1])[:, -1]

    def random_twin(self, seed: int) -> "ModuleSubject":
        module = _redrawn(self.module, seed) if self._make_twin is None else self._make_twin(seed).to(self.device)
        return type(self)(
            module,
            self.problem,
            city_positions=self._cities,
            decode_positions=self._decode,
            name=f"{self.name}, random weights",
            description=self.description,
            make_twin=self._make_twin,
        )

    def _inputs(self, features: Tensor, tours: Tensor) -> tuple[Tensor, Tensor]:
        features = torch.as_tensor(features, dtype=torch.float32)
        if not torch.isfinite(features).all():
            raise UserError("the features hold NaN or infinite values; every feature must be a finite number")
        return features.to(self.device), torch.as_tensor(tours).to(self.device)

    def _tour_logits(self, logits: Tensor, length: int) -> Tensor:
        return logits if logits.shape[1] == length else logits[:, list(self._decode[:length])]

    def _check_hooks(self, hooks: Sequence[str]) -> None:
        for name in hooks:
            if name not in self.module.hook_dict:
                raise UserError(f"{self.name} has no hook point {name!r}; see subject.hook_names")

    def _dry_run(self) -> None:
        """One instance and a two-city prefix: shapes must fit, and later cities must not leak backwards."""
        n = self.problem.n
        instance = self.problem.draw(1, np.random.default_rng(0))
        features = torch.from_numpy(instance.features)
        tour = torch.arange(n - 1)[None]
        other = torch.cat([tour[:, :2], (n + 1) - tour[:, 2:]], dim=1)
        try:
            with torch.no_grad():
                short = self.module(*self._inputs(features, tour[:, :2]))
                full, changed = (self.module(*self._inputs(features, later)) for later in (tour, other))
        except Exception as error:
            raise UserError(
                f"the network's forward(features [1, {n}, {features.shape[2]}], tour [1, 2]) failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not isinstance(short, Tensor) or short.dim() != 3 or short.shape[0] != 1 or short.shape[2] != n:
            got = tuple(short.shape) if isinstance(short, Tensor) else type(short).__name__
            raise UserError(f"forward(features, tour) must give logits [batch, position, n] = [1, .., {n}], got {got}")
        if short.shape[1] != 2 and short.shape[1] <= max(self._decode[:2]):
            raise UserError(
                f"logits have {short.shape[1]} positions for a tour of 2: give decode_positions inside that range"
            )
        short, full = self._tour_logits(short, 2), self._tour_logits(full, n - 1)[:, :2]
        changed = self._tour_logits(changed, n - 1)[:, :2]
        # Equal shapes run the same kernels, so here even the small leak of an untrained network stands out.
        leak = float((full - changed).abs().max() / full.abs().max().clamp(min=1e-30))
        if leak > 1e-6 or not torch.allclose(short, full, atol=1e-4, rtol=1e-3):
            raise UserError(
                "the network's answer after two cities changes when later cities of the tour are shown; "
                "a Subject must answer from the prefix alone"
            )


class MaskedSubject(ModuleSubject):
    """A bidirectional `TourGPT`: the prefix is revealed, the rest masked, one pass for each state.

    The logits of the next city are those at the first masked position when all positions from there on are masked; the
    network answers the others in the same pass, and nothing is resampled. `position_logits` is what editing uses.
    """

    sequential = False
    module: TourGPT

    def decode_position(self, length: int) -> int:
        return self._decode[length]

    def next_city_logits(self, features: Tensor, prefixes: Tensor) -> Tensor:
        with torch.no_grad():
            return self._next(self.module(*self._inputs(features, prefixes)), prefixes)

    def logits(self, features: Tensor, tours: Tensor) -> Tensor:
        steps = range(1, tours.shape[1] + 1)
        return torch.stack([self.next_city_logits(features, tours[:, :t]) for t in steps], dim=1)

    def position_logits(
        self, features: Float[Tensor, "batch n f"], tours: Int[Tensor, "batch n"]
    ) -> Float[Tensor, "batch n n"]:
        """Logits of the city at every position of tours with holes (UNKNOWN), in one pass."""
        with torch.no_grad():
            return self.module(*self._inputs(features, tours))

    def edited_logits(self, features: Tensor, prefixes: Tensor, edits: Mapping[str, Edit]) -> Tensor:
        self._check_hooks(list(edits))
        with torch.no_grad():
            logits = self.module.run_with_hooks(*self._inputs(features, prefixes), fwd_hooks=list(edits.items()))
        return self._next(logits, prefixes)

    def _next(self, logits: Tensor, prefixes: Tensor) -> Tensor:
        return logits[:, min(prefixes.shape[1], self.problem.n - 1)]

    def _inputs(self, features: Tensor, tours: Tensor) -> tuple[Tensor, Tensor]:
        features, tours = super()._inputs(features, tours)
        return features, torch.nn.functional.pad(tours, (0, self.problem.n - tours.shape[1]), value=UNKNOWN)

    def _dry_run(self) -> None:
        return


def wrap(
    module: HookedRootModule,
    problem: Problem,
    *,
    city_positions: Sequence[int] | None = None,
    decode_positions: Sequence[int] | None = None,
    name: str = "subject",
) -> Subject:
    """Make any `HookedRootModule` a Subject in one call.

    `module.forward(features [batch, n, f], tour [batch, t])` must give logits over cities,
    `[batch, position, n]`, where entry i answers the state `tour[:, :i + 1]`. `city_positions` and
    `decode_positions` say where in the network's sequence the tokens of the cities and of the tour stand
    (default: cities at 0..n-1, then the tour). A dry run checks shapes and that nothing leaks backwards;
    what does not fit raises UserError.

    >>> from mesaprobe.models import GPTConfig, TourGPT
    >>> from mesaprobe.problems import ProblemConfig, make_problem
    >>> subject = wrap(TourGPT(GPTConfig(d_model=8, n_heads=2, d_mlp=8), 6, 6), make_problem(ProblemConfig(n=6)))
    >>> subject.logits(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """
    return ModuleSubject(module, problem, city_positions=city_positions, decode_positions=decode_positions, name=name)


def gpt_subject(model: TourGPT, problem: Problem, name: str, description: Mapping[str, Any]) -> Subject:
    """The Subject of one of our own networks."""
    config = model.config
    known = {"layers": config.n_layers, "d_model": config.d_model, "attention": config.attention}

    def make_twin(seed: int) -> TourGPT:
        return TourGPT(config, model.n, model.n_features, seed=seed)

    kind = MaskedSubject if config.attention == "bidirectional" else ModuleSubject
    return kind(model, problem, name=name, description={**known, **description}, make_twin=make_twin)


def _redrawn(module: HookedRootModule, seed: int) -> HookedRootModule:
    """A copy with every weight matrix drawn anew, normal with the same mean and spread; vectors are kept."""
    import copy

    twin = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in twin.parameters():
            if parameter.dim() >= 2:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter)
                parameter.copy_(parameter.mean() + parameter.std() * noise)
    return twin
