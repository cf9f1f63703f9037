"""Linear concept erasure by LEACE at one or several sites, and random erasures that remove as much.

LEACE (Belrose et al. 2023) is the smallest affine change after which no linear map predicts the concept better than
a constant. At several sites the erasers are fitted one after the other, each on the activations that the erasers
before it leave (concept scrubbing): fitted on undisturbed activations, the later ones would miss what the network
computes anew. A concept that is not linear in the activations survives, and so does one held at other sites.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from concept_erasure import LeaceEraser, LeaceFitter
from jaxtyping import Bool, Float, Float64
from scipy.optimize import brentq
from torch import Tensor

from mesaprobe.errors import UserError
from mesaprobe.instruments.activations import Site
from mesaprobe.instruments.patching.runs import EditableRun, RowEdit, Run, read_site, site_positions, write_site
from mesaprobe.models.subject import Subject


@dataclass(frozen=True, eq=False)
class SiteEraser:
    """An affine eraser of one site, x -> x - L R (x - mean), and the activations' statistics that it rests on."""

    site: Site
    left: Float64[Tensor, "d rank"]
    right: Float64[Tensor, "rank d"]
    mean: Float64[Tensor, " d"]
    covariance: Float64[Tensor, "d d"]

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The activations without the concept."""
        return LeaceEraser(*(part.to(x.device) for part in (self.left, self.right, self.mean)))(x)

    @property
    def rank(self) -> int:
        """Dimensions removed."""
        return self.left.shape[1]

    @property
    def removed_variance(self) -> float:
        """Mean squared length of what is taken away from the activations."""
        change = self.left @ self.right
        return float(torch.trace(change @ self.covariance @ change.mT))


@dataclass(frozen=True, eq=False)
class Erasure:
    """Erasers at one or several sites, in the order of the pass, applied together."""

    erasers: tuple[SiteEraser, ...]

    def logits(self, subject: Subject, run: Run) -> Float[Tensor, "batch n"]:
        """Next-city logits of every state under the erasure."""
        edits = _edits(subject, run, self.erasers)
        return EditableRun(subject, run, list(edits)).logits(edits)

    def matched_random(self, generator: torch.Generator) -> "Erasure":
        """Erasers of random concepts that remove, at each site, as many dimensions and as much variance.

        In the whitened space where LEACE projects orthogonally, random directions are drawn with a tilt towards
        high or low variance, chosen so that the removed variance is the same.
        """
        return Erasure(tuple(_random_like(eraser, generator) for eraser in self.erasers))


def fit_eraser(site: Site, activations: Float[Tensor, "sample d"], concept: Float[Tensor, "sample z"]) -> SiteEraser:
    """LEACE of a concept (numbers, or one-hot classes) from activations; rank at most the concept's.

    Raises UserError for a concept that does not vary.
    """
    x, z = activations.double(), concept.double().flatten(1)
    scale = z.std(dim=0)
    if not bool((scale > 0).any()):
        raise UserError(f"the concept to be erased at {site} is the same in all {len(z)} samples")
    z = z[:, scale > 0] / scale[scale > 0]
    # In standard units the library's cut-off for singular values has a meaning; this one drops only rounding. The
    # trace of the covariance cannot grow under exact whitening, so the library's guard against that is not needed.
    fitter = LeaceFitter.fit(x, z, svd_tol=1e-6, constrain_cov_trace=False)
    eraser = fitter.eraser
    kept = eraser.proj_left.norm(dim=0) > 0
    centred = x - fitter.mean_x
    covariance = centred.mT @ centred / (len(x) - 1)
    return SiteEraser(site, eraser.proj_left[:, kept], eraser.proj_right[kept], fitter.mean_x, covariance)


def fit_erasure(
    subject: Subject,
    run: Run,
    concept: Float[Tensor, "batch z"] | Float[Tensor, "batch n z"],
    sites: Sequence[Site],
    *,
    samples: Bool[Tensor, "batch n"] | None = None,
) -> Erasure:
    """Erase a concept at the sites, one after the other in the order given, which must be that of the pass.

    A concept of a state [batch, z] is erased from the token that answers it (sites of role `decode`); one of a
    state and a city [batch, n, z] from the tokens of all cities (role `city`), fitted on those that `samples` marks
    (for instance the unvisited; default all) and applied to all.
    """
    if len(concept) != len(run) or any((site.role == "city") != (concept.ndim == 3) for site in sites):
        raise ValueError(
            "a concept has shape (batch, z) for sites of role decode and (batch, n, z) for sites of role city, "
            f"with batch = {len(run)}; got {tuple(concept.shape)} for {[str(site) for site in sites]}"
        )
    editable = EditableRun(subject, run, list(dict.fromkeys(site.hook for site in sites)))
    erasers: list[SiteEraser] = []
    for site in sites:
        vectors = _seen(subject, editable, erasers, site)
        rows = torch.ones(vectors.shape[:2], dtype=torch.bool) if samples is None else samples
        values = concept[:, None] if concept.ndim == 2 else concept
        erasers.append(fit_eraser(site, vectors[rows], values[rows]))
    return Erasure(tuple(erasers))


def _seen(
    subject: Subject, editable: EditableRun, erasers: Sequence[SiteEraser], site: Site
) -> Float[Tensor, "batch token d"]:
    """What a site holds while the erasers before it are at work."""
    positions = _positions(subject, editable.run, site)
    parts: dict[int, Tensor] = {}
    edits = _edits(subject, editable.run, erasers)
    before = edits.get(site.hook, lambda activation, rows: activation)  # noqa: ARG005

    def record(activation: Tensor, rows: Tensor) -> Tensor:
        activation = before(activation, rows)
        found = read_site(activation, site, positions[rows]).float().cpu()
        parts.update(zip(rows.tolist(), found, strict=True))
        return activation

    editable.logits({**edits, site.hook: record})
    return torch.stack([parts[row] for row in range(len(editable.run))])


def _edits(subject: Subject, run: Run, erasers: Sequence[SiteEraser]) -> dict[str, RowEdit]:
    """One edit for each hook; erasers of several roles or heads at one hook follow each other."""
    edits: dict[str, RowEdit] = {}
    for eraser in erasers:
        hook = eraser.site.hook
        edits[hook] = _erasing(eraser, _positions(subject, run, eraser.site), edits.get(hook))
    return edits


def _erasing(eraser: SiteEraser, positions: Tensor, before: Callable[[Tensor, Tensor], Tensor] | None) -> RowEdit:
    def edit(activation: Tensor, rows: Tensor) -> Tensor:
        activation = activation if before is None else before(activation, rows)
        vectors = read_site(activation, eraser.site, positions[rows])
        return write_site(activation, eraser.site, positions[rows], eraser(vectors))

    return edit


def _positions(subject: Subject, run: Run, site: Site) -> Tensor:
    every = torch.arange(subject.problem.n).expand(len(run), -1)
    return site_positions(subject, site, run, every if site.role == "city" else None)


def _random_like(eraser: SiteEraser, generator: torch.Generator) -> SiteEraser:
    values, vectors = torch.linalg.eigh(eraser.covariance)
    real = values > values[-1] * len(values) * torch.finfo(values.dtype).eps
    values, vectors = values[real], vectors[:, real]
    if eraser.rank in (0, len(values)):  # nothing is removed, or everything that varies: there is no other choice
        return eraser
    noise = torch.randn(len(values), eraser.rank, generator=generator, dtype=values.dtype)

    def directions(tilt: float) -> Float64[Tensor, "real rank"]:
        """Orthonormal, in the whitened space's principal axes."""
        return torch.linalg.qr(torch.exp(tilt * (values / values[-1]).log())[:, None] * noise).Q

    def excess(tilt: float) -> float:
        return float((values[:, None] * directions(tilt).square()).sum()) / eraser.removed_variance - 1

    # The removed variance grows with the tilt, from the smallest eigenvalues to the largest.
    low, high = -4.0, 4.0
    if not excess(low) < 0 < excess(high):
        raise UserError(f"no random erasure at {eraser.site} removes as much variance as the fitted one")
    chosen = directions(float(brentq(excess, low, high, xtol=1e-10)))
    scale = values.sqrt()[:, None]
    return replace(eraser, left=vectors @ (scale * chosen), right=(vectors @ (chosen / scale)).mT)
