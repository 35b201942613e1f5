# SPDX-License-Identifier: Apache-2.0
"""Many tests at once: Holm's step-down correction, with weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p: ArrayLike, weights: ArrayLike | None = None) -> NDArray[np.float64]:
    """Adjusted p-values: claiming where they are <= alpha makes any false claim with probability <= alpha.

    Holm (1979), Scandinavian Journal of Statistics 6, section 2 and, with weights, section 4: in the order of p_i / w_i,
    each is multiplied by the weight that is still undecided. It holds however the tests depend on one another.

    Args:
        p: p-values; NaN is "no test was possible", which is no claim: it stays NaN and costs the others nothing.
        weights: positive shares of alpha, any scale; None for equal ones.

    >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    >>> holm([0.02, 0.02, 0.02], [2, 1, 1]).round(4).tolist()
    [0.04, 0.04, 0.04]
    """
    p = np.asarray(p, dtype=float)
    w = np.ones(p.shape) if weights is None else np.asarray(weights, dtype=float)
    if w.shape != p.shape or np.any(w <= 0) or not np.all(np.isfinite(w)):
        raise ValueError("one positive weight is needed for each p-value")
    out = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    if not tested.size:
        return out
    ratio = p[tested] / w[tested]
    order = tested[np.argsort(ratio, kind="stable")]
    left = np.cumsum(w[order][::-1])[::-1]
    out[order] = np.minimum(1.0, np.maximum.accumulate(p[order] / w[order] * left))
    return out
