"""Distances between two sets of feature vectors, gathered as a stream: Frechet and kernel distance, inception score.

All sums are in float64: a covariance is a difference of large numbers.  Nothing grows with the number of vectors but
the sample of them that the kernel distance is told from, which is bounded.

Letters: n vectors, d features each.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

ENOUGH = 512  # vectors: with fewer, a Frechet distance in hundreds of dimensions says more of their number than of them


class Moments:
    """Mean and covariance of vectors as they come, merged as in Chan, Golub & LeVeque 1983."""

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean = torch.zeros(features, dtype=torch.float64)
        self._scatter = torch.zeros(features, features, dtype=torch.float64)

    def add(self, vectors: Tensor) -> None:
        """(n, d)"""
        vectors = vectors.cpu().double()  # there are devices without float64
        mean = vectors.mean(dim=0)
        apart = vectors - mean
        self._merge(len(vectors), mean, apart.T @ apart)

    def __add__(self, other: Moments) -> Moments:
        out = Moments(len(self.mean))
        for part in (self, other):
            if part.count:
                out._merge(part.count, part.mean, part._scatter)
        return out

    @property
    def covariance(self) -> Tensor:
        """(d, d), unbiased."""
        return self._scatter / (self.count - 1)

    def _merge(self, count: int, mean: Tensor, scatter: Tensor) -> None:
        total = self.count + count
        apart = mean - self.mean
        self._scatter += scatter + torch.outer(apart, apart) * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total


def frechet(one: Moments, other: Moments) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), the squared Wasserstein distance of two Gaussians (Dowson & Landau
    1982), as in FID (arXiv:1706.08500).  Both need two vectors or more.

    (C1 C2)^(1/2) is never formed: C1 C2 is not symmetric, and the usual iterations for its root break down where it is
    singular, as it is with fewer vectors than features.  Its trace is the sum of the singular values of
    C1^(1/2) C2^(1/2), and each of these roots is that of a symmetric matrix, by its eigenvalues.  Eigenvalues of the
    product itself would do as well but lose half of the digits of the small ones.
    """
    roots = []
    for moments in (one, other):
        values, vectors = torch.linalg.eigh(moments.covariance)
        roots.append(vectors * values.clamp(min=0).sqrt() @ vectors.T)
    cross = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    apart = (one.mean - other.mean).square().sum()
    return float(apart + one.covariance.trace() + other.covariance.trace() - 2 * cross)


class Sample:
    """Some of the vectors that came, all equally likely (Vitter's algorithm R); every run draws the same."""

    def __init__(self, most: int = 1024) -> None:
        self._most, self._seen = most, 0
        self._held: list[Tensor] = []
        self._draw = torch.Generator().manual_seed(0)

    def add(self, vectors: Tensor) -> None:
        """(n, d)"""
        for vector in vectors.float().cpu().clone():
            self._seen += 1
            if len(self._held) < self._most:
                self._held.append(vector)
                continue
            at = int(torch.randint(self._seen, (), generator=self._draw))
            if at < self._most:
                self._held[at] = vector

    def __len__(self) -> int:
        return len(self._held)

    @property
    def vectors(self) -> Tensor:
        """(n, d) float64"""
        return torch.stack(self._held).double()


def kernel_distance(one: Tensor, other: Tensor) -> tuple[float, float]:
    """The unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3 (KID, arXiv:1801.01401), and its
    standard error, were all vectors drawn independently.  (n, d) and (m, d), n and m >= 2.

    Its expectation does not depend on n: 0 where both are drawn from the same, so it can come out below 0.
    """
    d = one.shape[1]
    within, across, around = [], (one @ other.T / d + 1) ** 3, []
    for vectors, mean in ((one, across.mean(dim=1)), (other, across.mean(dim=0))):
        kernel = (vectors @ vectors.T / d + 1) ** 3
        rows = (kernel.sum(dim=1) - kernel.diagonal()) / (len(vectors) - 1)
        within.append(rows.mean())
        around.append(4 * (rows - mean).var() / len(vectors))  # of the first term of Hoeffding's decomposition
    return float(within[0] + within[1] - 2 * across.mean()), math.sqrt(float(around[0] + around[1]))


class InceptionScore:
    """exp of the mean KL divergence of each vector's classes from all vectors' (arXiv:1606.03498), from logits.

    It is told of all that came.  The standard error is by leaving out one group of ten in turn.
    """

    _GROUPS = 10

    def __init__(self, classes: int) -> None:
        self.count = 0
        self._counts = torch.zeros(self._GROUPS, dtype=torch.float64)
        self._shares = torch.zeros(self._GROUPS, classes, dtype=torch.float64)
        self._entropy = torch.zeros(self._GROUPS, dtype=torch.float64)

    def add(self, logits: Tensor) -> None:
        """(n, classes)"""
        for said in logits.cpu().double().log_softmax(dim=1):
            group = self.count % self._GROUPS
            self._counts[group] += 1
            self._shares[group] += said.exp()
            self._entropy[group] += (said.exp() * said).sum()
            self.count += 1

    def score(self) -> tuple[float, float | None]:
        """The score and its standard error, which needs two vectors a group."""
        every = torch.ones(self._GROUPS, dtype=torch.float64)
        value = self._of(every)
        if self.count < 2 * self._GROUPS:
            return value, None
        left = torch.tensor([self._of(every - one) for one in torch.eye(self._GROUPS, dtype=torch.float64)])
        spread = (self._GROUPS - 1) / self._GROUPS * (left - left.mean()).square().sum()
        return value, math.sqrt(float(spread))

    def _of(self, groups: Tensor) -> float:
        count = groups @ self._counts
        shares = groups @ self._shares / count
        return float((groups @ self._entropy / count - torch.xlogy(shares, shares).sum()).exp())
