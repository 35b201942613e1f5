# SPDX-License-Identifier: Apache-2.0
"""Several reward models as one: their mean, their worst, or their mean less what they disagree by."""

from __future__ import annotations

from typing import Literal

import numpy as np

from agentgym.errors import DefinitionError

How = Literal["mean", "worst", "uncertainty"]


def combine(
    scores: np.ndarray, how: How = "worst", *, penalty: float = 1.0, spread: Literal["std", "variance"] = "std"
) -> np.ndarray:
    """One score out of those of each member (Coste et al. 2024, arXiv 2310.02743).

    What one member overrates by chance, the others mostly do not: the worst case and the disagreement show it.
    Members must share a scale, as those do that were trained alike on different seeds or rows.

    Args:
        scores: float[members, ...].
        how: ``mean``; ``worst``: the least; ``uncertainty``: the mean less ``penalty`` times the spread.
        penalty: of the spread, at least 0.
        spread: ``std`` over the members, in units of the score; ``variance`` is the paper's.

    Returns: float64[...].

    Raises:
        DefinitionError: no member, or no such way.

    >>> scores = np.array([[1.0, 0.0], [1.0, 3.0]])
    >>> [combine(scores, how).tolist() for how in ("mean", "worst", "uncertainty")]
    [[1.0, 1.5], [1.0, 0.0], [1.0, 0.0]]
    """
    given = np.asarray(scores, np.float64)
    if given.ndim < 1 or not len(given) or not penalty >= 0:
        raise DefinitionError(f"an ensemble needs a member, and a penalty of at least 0: {given.shape}, {penalty}")
    if how == "mean":
        return np.asarray(given.mean(0))
    if how == "worst":
        return np.asarray(given.min(0))
    if how == "uncertainty":
        return np.asarray(given.mean(0) - penalty * (given.std(0) if spread == "std" else given.var(0)))
    raise DefinitionError(f"an ensemble is combined by mean, worst or uncertainty, not {how!r}")
