"""Runs of a network over states of different prefix lengths, and the network from a layer on."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.instruments.activations import Site
from mesaprobe.labels.pairs import CounterfactualPairs
from mesaprobe.models.config import UNKNOWN
from mesaprobe.models.gpt import TourGPT
from mesaprobe.models.subject import Edit, ModuleSubject, Subject

ROWS = 256
"""States in one pass: more gains nothing on a CPU, where the work is then bound by arithmetic."""

RowEdit = Callable[[Tensor, Int[Tensor, " row"]], Tensor]
"""`edit(activation, rows)`: what replaces the activation of these rows of a run."""


class Run:
    """States that a network is run on: instances, and for each the first `lengths[b]` cities of `prefixes[b]`.

    What stands in a prefix beyond its length is never read.

    >>> run = Run(torch.rand(3, 6, 6), torch.zeros(3, 4, dtype=torch.long), torch.tensor([2, 4, 2]))
    >>> [(length, rows.tolist()) for length, rows, _ in run.by_length()]
    [(2, [0, 2]), (4, [1])]
    """

    def __init__(
        self,
        features: Float[Tensor, "batch n f"],
        prefixes: Int[Tensor, "batch t"],
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> None:
        self.features, self.prefixes = torch.as_tensor(features), torch.as_tensor(prefixes)
        count, longest = len(self.prefixes), self.prefixes.shape[1]
        self.lengths = torch.full((count,), longest) if lengths is None else torch.as_tensor(lengths)
        if len(self.features) != count or self.lengths.shape != (count,):
            raise ValueError(
                f"features, prefixes and lengths must agree in their number of states, got "
                f"{len(self.features)}, {count} and {tuple(self.lengths.shape)}"
            )
        if count and not 1 <= int(self.lengths.min()) <= int(self.lengths.max()) <= longest:
            raise ValueError(f"lengths must lie in 1..{longest}, got {self.lengths.min()}..{self.lengths.max()}")

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | Tensor) -> "Run":
        return Run(self.features[rows], self.prefixes[rows], self.lengths[rows])

    def by_length(self) -> Iterator[tuple[int, Int[Tensor, " row"], "Run"]]:
        """The states of each length: the length, which rows they are, and their run."""
        for length in self.lengths.unique().tolist():
            rows = (self.lengths == length).nonzero()[:, 0]
            yield length, rows, Run(self.features[rows], self.prefixes[rows, :length])

    @property
    def length(self) -> int:
        """The one length of all prefixes; ValueError where they differ."""
        if len(lengths := self.lengths.unique().tolist()) != 1:
            raise ValueError(f"the prefixes must all have one length here, got lengths {lengths}; see by_length")
        return int(lengths[0])

    @staticmethod
    def concatenate(first: "Run", second: "Run") -> "Run":
        """The states of both, those of `first` before those of `second`."""
        width = max(first.prefixes.shape[1], second.prefixes.shape[1])
        prefixes = [F.pad(run.prefixes, (0, width - run.prefixes.shape[1])) for run in (first, second)]
        return Run(
            torch.cat([first.features, second.features]),
            torch.cat(prefixes),
            torch.cat([first.lengths, second.lengths]),
        )


def paired_runs(pairs: CounterfactualPairs) -> tuple[Run, Run, Run]:
    """The runs of the base, of its relevant and of its irrelevant twin, which share their prefixes."""
    prefixes, lengths = torch.from_numpy(pairs.prefixes), torch.from_numpy(pairs.lengths)
    base, relevant, irrelevant = (Run(torch.from_numpy(member.features), prefixes, lengths) for member in pairs.members)
    return base, relevant, irrelevant


def site_positions(
    subject: Subject, site: Site, run: Run, cities: Int[Tensor, "batch token"] | None = None
) -> Int[Tensor, "batch token"]:
    """Where the tokens of a site stand: the one that answers the state (`decode`), or those of `cities`.

    A matrix weight d(u, v) stands in the tokens of u and of v: give both as `cities`, and they are one location.
    """
    if site.role == "decode":
        return torch.tensor([[subject.decode_position(length)] for length in run.lengths.tolist()])
    if cities is None or cities.ndim != 2 or len(cities) != len(run):
        got = None if cities is None else tuple(cities.shape)
        raise ValueError(f"a site of role city needs cities of shape (batch, token) = ({len(run)}, ..), got {got}")
    return torch.tensor(subject.city_positions)[cities]


def site_vectors(
    subject: Subject, run: Run, site: Site, positions: Int[Tensor, "batch token"], *, chunk: int = ROWS
) -> Float[Tensor, "batch token d"]:
    """What a site saw at the given positions, by state, on the CPU."""
    found: Tensor | None = None
    for _, rows, part in run.by_length():
        for some, piece in zip(rows.split(chunk), _split(part, chunk), strict=True):
            seen = subject.activations(piece.features, piece.prefixes, [site.hook])[site.hook]
            picked = read_site(seen, site, positions[some]).cpu()
            if found is None:
                found = picked.new_empty(len(run), *picked.shape[1:])
            found[some] = picked
    if found is None:
        raise ValueError("no states were given")
    return found


def read_site(
    activation: Float[Tensor, "batch pos *d"], site: Site, positions: Int[Tensor, "batch token"]
) -> Float[Tensor, "batch token d"]:
    """A site's vectors: one head's, or all that the hook holds at these tokens."""
    picked = activation[_index(positions, activation)]
    return picked.flatten(2) if site.head is None else picked[:, :, site.head]


def write_site(
    activation: Float[Tensor, "batch pos *d"],
    site: Site,
    positions: Int[Tensor, "batch token"],
    vectors: Float[Tensor, "batch token d"],
) -> Float[Tensor, "batch pos *d"]:
    """The activation with a site's vectors replaced; gradients pass."""
    index = _index(positions, activation)
    if site.head is None:
        return activation.index_put(index, vectors.reshape(*positions.shape, *activation.shape[2:]))
    head = torch.tensor(site.head, device=activation.device)
    return activation.index_put((*index, head), vectors)


def _index(positions: Tensor, activation: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.arange(len(activation), device=activation.device)
    return rows[:, None], positions.to(activation.device)


def _split(run: Run, chunk: int) -> Iterator[Run]:
    return (run[start : start + chunk] for start in range(0, len(run), chunk))


class Tail:
    """The network from some hook points on, for the states of a run: what lies below is computed once.

    Our own networks resume at the first layer that holds one of the hooks; other modules run from their inputs.
    Calling it with row numbers gives next-city logits [row, n] and keeps the graph, so that gradients reach what
    hooks bring in. Raises UserError for a subject whose module cannot be reached.
    """

    def __init__(self, subject: Subject, run: Run, hooks: Sequence[str]) -> None:
        if not isinstance(subject, ModuleSubject):
            raise UserError(
                f"gradients need a subject made by mesaprobe.load or mesaprobe.wrap, got {type(subject).__name__}"
            )
        for hook in hooks:
            if hook not in subject.hook_names:
                raise UserError(f"{subject.name} has no hook point {hook!r}; see subject.hook_names")
        layers = [resume_layer(subject, hook) for hook in hooks]
        self.module, self.layer = (
            subject.module,
            None if None in layers else min(layer for layer in layers if layer is not None),
        )
        self.answers = run.lengths - int(subject.sequential)
        self.decode = torch.tensor([subject.decode_position(length) for length in run.lengths.tolist()])
        self.features, self.tours = module_inputs(subject, run)
        self.stream: Tensor | None = None
        if self.layer is not None:
            with torch.no_grad():
                parts = zip(self.features.split(ROWS), self.tours.split(ROWS), strict=True)
                self.stream = torch.cat([self.module(*part, stop_at_layer=self.layer) for part in parts])

    def __call__(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row n"]:
        if self.stream is not None:
            logits = self.module(None, None, resid=self.stream[rows], start_at_layer=self.layer)
        else:
            logits = self.module(self.features[rows], self.tours[rows])
        at = self.answers if logits.shape[1] == self.tours.shape[1] else self.decode
        return logits[torch.arange(len(rows)), at[rows]]


class EditableRun:
    """A run that is made many times, each time with other edits at the same hook points, without gradients."""

    def __init__(self, subject: Subject, run: Run, hooks: Sequence[str]) -> None:
        self.subject, self.run, self.hooks = subject, run, tuple(hooks)
        self.tail = Tail(subject, run, hooks) if isinstance(subject, ModuleSubject) else None

    def logits(self, edits: Mapping[str, RowEdit], *, chunk: int = ROWS) -> Float[Tensor, "batch n"]:
        """Next-city logits of every state under the edits, on the CPU."""
        if unknown := set(edits) - set(self.hooks):
            raise ValueError(f"this run can be edited at {self.hooks}, not at {sorted(unknown)}")
        logits = torch.empty(len(self.run), self.subject.problem.n)
        if self.tail is not None:
            for rows in torch.arange(len(self.run)).split(chunk):
                with torch.no_grad(), self.tail.module.hooks(fwd_hooks=list(_for_rows(edits, rows).items())):
                    logits[rows] = self.tail(rows).float().cpu()
            return logits
        for _, rows, part in self.run.by_length():
            for some, piece in zip(rows.split(chunk), _split(part, chunk), strict=True):
                found = self.subject.edited_logits(piece.features, piece.prefixes, _for_rows(edits, some))
                logits[some] = found.float().cpu()
        return logits


def _for_rows(edits: Mapping[str, RowEdit], rows: Tensor) -> dict[str, Edit]:
    def bound(edit: RowEdit) -> Edit:
        return lambda activation, hook: edit(activation, rows)  # noqa: ARG005

    return {name: bound(edit) for name, edit in edits.items()}


def module_inputs(subject: ModuleSubject, run: Run) -> tuple[Float[Tensor, "batch n f"], Int[Tensor, "batch t"]]:
    """What the module itself is given for a run; a network that sees every token is shown no later city."""
    tours = run.prefixes[:, : int(run.lengths.max())]
    if not subject.sequential:
        tours = torch.where(torch.arange(tours.shape[1]) < run.lengths[:, None], tours, UNKNOWN)
    return subject._inputs(run.features, tours)


def own_network(subject: Subject) -> TourGPT | None:
    """The network of a subject that can be resumed at any layer, or None for other subjects."""
    if isinstance(subject, ModuleSubject) and type(subject.module) is TourGPT:
        return subject.module
    return None


def resume_layer(subject: Subject, hook: str) -> int | None:
    """The layer at which a pass that edits `hook` can start, or None if it has to start from the inputs."""
    return int(hook.split(".")[1]) if own_network(subject) is not None and hook.startswith("blocks.") else None
