"""A network that cannot compare completions: one score per candidate city, from local features of it alone.

Trained on optimal tours it is the hard negative of the zoo (method.md section 6.2, N7): whatever it gets right, it
got from a fixed map of the features below: the geometric part of the nuisance vector Z (method.md section 4) and the
same statistics for city 0, where the tour must end.

The stream has the usual positions, n city tokens and then the tour's tokens, of width d_model = n * width:

    blocks.0 reads     city token c: row c of the distances; tour token t: row of tour[t], and which city that is
    blocks.0 leaves    tour token t: for each candidate a, W f(t, a) + b    (`width` numbers; n of them side by side)
    blocks.l >= 1      h_a + MLP(h_a), the same MLP for every candidate and every token
    unembed            logit_a = w . h_a + b

City tokens are read by block 0 and carried along unchanged. No number of one candidate ever reaches another's, so
the logit of a is a function of the list `LOCAL_FEATURES`: of the rows of c, a and 0, each summed up by itself over
unvisited cities. The cost of a completion needs weights between other cities, or which entries of two rows belong to
the same city; only where at most one city remains after a is it among the features. Visited cities show the same
features everywhere (a flag and zeros); that they are worth nothing is learnt, so that the last stream alone decides
the logits, as in the GPT.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from mesaprobe.models.config import LocalScorerConfig
from mesaprobe.models.gpt import LensConfig
from mesaprobe.models.token_stream import Stream, check_features, shown, stream_config

LOCAL_FEATURES = (
    "visited (1 or 0; where it is 1, all that follows is 0)",
    "d(c, a)",
    "share of cities that are unvisited and nearer to c than a",
    "d(c, a) - min d(c, u)",
    "mean d(c, u)",
    "d(c, 0)",
    "d(a, 0)",
    "mean d(a, u)",
    "mean d(0, u)",
    "share of cities that are unvisited",
    "the `neighbours` smallest d(c, u), ascending",
    "the `neighbours` smallest d(a, u), ascending",
    "the `neighbours` smallest d(0, u), ascending",
)
"""What is known of candidate a at current city c: u runs over unvisited cities, in the rows of a and 0 without a.
Distances are in units of the features; what does not exist near the end is 0."""
_SCALARS, _ROWS = 10, 3


class LocalFeatures(nn.Module):
    """Block 0: from the rows of the current city, the candidate and city 0 to the candidate's first hidden vector."""

    def __init__(self, config: LocalScorerConfig, n: int) -> None:
        super().__init__()
        self.n, self.neighbours = n, min(config.neighbours, n)
        self.embed = nn.Linear(_SCALARS + _ROWS * self.neighbours, config.width)
        self.hook_resid_pre, self.hook_features, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, stream: Stream) -> Stream:
        n = self.n
        cities, steps = shown(self.hook_resid_pre, stream)
        unvisited = steps[:, :, n : 2 * n].cumsum(1) < 0.5
        features = local_features(cities[:, :, :n], steps[:, :, :n], unvisited, self.neighbours)
        hidden = self.embed(self.hook_features(features))  # [batch, t, n, width]
        return shown(self.hook_resid_post, (cities, hidden.flatten(2)))


class CandidateBlock(nn.Module):
    """h_a + MLP(h_a) for every candidate of the tour's tokens; city tokens pass unchanged."""

    def __init__(self, config: LocalScorerConfig, n: int) -> None:
        super().__init__()
        self.mlp = CandidateMLP(config, n)
        self.hook_resid_pre, self.hook_mlp_out, self.hook_resid_post = HookPoint(), HookPoint(), HookPoint()

    def forward(self, stream: Stream) -> Stream:
        cities, steps = shown(self.hook_resid_pre, stream)
        written, added = shown(self.hook_mlp_out, (torch.zeros_like(cities), self.mlp(steps)))
        return shown(self.hook_resid_post, (cities + written, steps + added))


class CandidateMLP(nn.Module):
    """One MLP for all candidates. Its hooks show all tokens, the candidates' hidden units side by side; those of city
    tokens are 0 and of no effect."""

    def __init__(self, config: LocalScorerConfig, n: int) -> None:
        super().__init__()
        self.n = n
        self.into, self.out = nn.Linear(config.width, config.d_mlp), nn.Linear(config.d_mlp, config.width)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, steps: Float[Tensor, "batch t d_model"]) -> Float[Tensor, "batch t d_model"]:
        hidden = self.into(steps.unflatten(2, (self.n, -1))).flatten(2)  # [batch, t, n * d_mlp]
        nothing = hidden.new_zeros(len(hidden), self.n, hidden.shape[2])
        hidden = shown(self.hook_pre, (nothing, hidden))[1].relu()
        hidden = shown(self.hook_post, (nothing, hidden))[1]
        return self.out(hidden.unflatten(2, (self.n, -1))).flatten(2)


class CandidateReadout(nn.Module):
    """logit_a = w . h_a + b: the unembedding, the same for every candidate."""

    def __init__(self, config: LocalScorerConfig, n: int) -> None:
        super().__init__()
        self.n, self.score = n, nn.Linear(config.width, 1)

    def forward(self, x: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch n"]:
        return self.score(x.unflatten(-1, (self.n, -1))).squeeze(-1)


class LocalScorer(HookedRootModule):
    """Names the next city from local features of each candidate. `forward(features, tour)` gives logits over cities.

    Weights are drawn from `seed` (normal, 1 / sqrt(inputs); what a block writes divided by sqrt(layers)).

    >>> scorer = LocalScorer(LocalScorerConfig(width=4, n_layers=2, d_mlp=8), n=6, n_features=6)
    >>> scorer(torch.rand(3, 6, 6), torch.tensor([[0, 2]] * 3)).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, config: LocalScorerConfig, n: int, n_features: int, *, seed: int = 0) -> None:
        super().__init__()
        if n_features not in (n, 2 * n, 2):
            raise ValueError(f"features must be distances (n or 2 n = {n}, {2 * n}) or 2 coordinates, got {n_features}")
        self.config, self.n, self.n_features = config, n, n_features
        later = (CandidateBlock(config, n) for _ in range(config.n_layers - 1))
        self.blocks = nn.ModuleList([LocalFeatures(config, n), *later])
        self.ln_final = nn.Identity()
        self.unembed = CandidateReadout(config, n)
        self._draw_weights(seed)
        self.setup()  # names every hook point, so it comes last

    @property
    def cfg(self) -> LensConfig:
        """The shape of the whole stream in TransformerLens' words; there are no attention heads."""
        return stream_config(
            self.n,
            n_layers=self.config.n_layers,
            d_model=self.n * self.config.width,
            d_mlp=self.n * self.config.d_mlp,
            act_fn="relu",
            device=self.unembed.score.weight.device,
        )

    def forward(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Float[Tensor, "batch t n"]:
        """Logits at every tour position, for the city that follows."""
        check_features(features, self.n, self.n_features)
        stream = self.tokens(features, tour)
        for block in self.blocks:
            stream = block(stream)
        return self.unembed(self.ln_final(stream[1]))

    def tokens(self, features: Float[Tensor, "batch n f"], tour: Int[Tensor, "batch t"]) -> Stream:
        """Rows of distances; those of the tour with a 1 for the city that was named; the rest is 0."""
        rows = torch.cdist(features, features) if self.n_features == 2 else features[:, :, : self.n]
        steps = rows.gather(1, tour[:, :, None].expand(-1, -1, self.n))
        steps = torch.cat([steps, F.one_hot(tour, self.n).to(rows)], dim=2)
        width = self.n * self.config.width
        return F.pad(rows, (0, width - self.n)), F.pad(steps, (0, width - 2 * self.n))

    def _draw_weights(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            with torch.no_grad():
                if parameter.dim() < 2:
                    parameter.zero_()
                    continue
                scale = 1 / math.sqrt(parameter.shape[1])
                if name.endswith("mlp.out.weight"):
                    scale /= math.sqrt(self.config.n_layers)
                parameter.normal_(0.0, scale, generator=generator)


def local_features(
    rows: Float[Tensor, "batch n n"],
    now: Float[Tensor, "batch t n"],
    unvisited: Bool[Tensor, "batch t n"],
    neighbours: int,
) -> Float[Tensor, "batch t n k"]:
    """`LOCAL_FEATURES` of every candidate. `rows` are the cities' rows of distances, `now` those of the current
    city at each step, `unvisited` the cities that may follow.

    >>> rows = torch.tensor([[[0., 1, 2, 3], [1, 0, 4, 5], [2, 4, 0, 6], [3, 5, 6, 0]]])
    >>> free = torch.tensor([[[False, False, True, True]]])  # now at city 1, after city 0
    >>> local_features(rows, rows[:, None, 1], free, 1)[0, 0, 3]
    tensor([0.0000, 5.0000, 0.2500, 1.0000, 4.5000, 1.0000, 3.0000, 6.0000, 2.0000,
            0.5000, 4.0000, 6.0000, 2.0000])
    """
    n = rows.shape[1]
    others = unvisited[:, :, None, :] & ~torch.eye(n, dtype=torch.bool, device=rows.device)  # [batch, t, a, u]
    near_now, mean_now = _smallest_and_mean(now, unvisited, neighbours)
    near, mean = _smallest_and_mean(rows[:, None], others, neighbours)
    near_home, mean_home = _smallest_and_mean(rows[:, None, :1], others, neighbours)
    nearer = (now[:, :, None, :] < now[:, :, :, None]) & unvisited[:, :, None, :]
    shared = [mean_now, now[:, :, 0], unvisited.to(rows).mean(-1)]
    mean_now, home_now, left = (x[:, :, None].expand_as(now) for x in shared)
    above = now - near_now[:, :, :1] if neighbours else now
    home = rows[:, None, :, 0].expand_as(now)
    scalars = [now, nearer.to(rows).mean(-1), above, mean_now, home_now, home, mean, mean_home, left]
    near_now = near_now[:, :, None].expand(-1, -1, n, -1)
    known = torch.cat([torch.stack(scalars, dim=-1), near_now, near, near_home], dim=-1)
    free = unvisited[..., None]
    return torch.cat([(~free).to(rows), torch.where(free, known, 0.0)], dim=-1)


def _smallest_and_mean(
    values: Float[Tensor, "*#batch n"], counted: Bool[Tensor, "*batch n"], count: int
) -> tuple[Float[Tensor, "*batch count"], Float[Tensor, "*batch"]]:
    """The `count` smallest of the values that count, ascending, 0 where there are too few; and their mean, or 0."""
    inside = torch.where(counted, values, torch.inf)
    smallest = inside.sort(dim=-1).values[..., :count]
    mean = torch.where(counted, values, 0.0).sum(-1) / counted.sum(-1).clamp(min=1)
    return torch.where(smallest.isinf(), 0.0, smallest), mean
