# SPDX-License-Identifier: Apache-2.0
"""Writes what statsmodels says about fixed data, for `test_statsmodels.py`; it is too heavy to be installed for that alone.

pip install statsmodels && python tests/stats/reference_statsmodels.py > tests/data/statsmodels.json
"""

import json

import numpy as np


def main() -> None:
    import statsmodels
    import statsmodels.api as sm
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.multitest import multipletests
    from statsmodels.stats.power import TTestPower
    from statsmodels.stats.proportion import proportion_confint

    rng = np.random.default_rng(7)
    clusters = np.repeat(np.arange(24), 5)
    d = (rng.normal(-0.03, 0.05, 24)[clusters] + rng.normal(0, 0.2, 120)).round(3)
    fit = sm.OLS(d, np.ones(120)).fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
    low, high = fit.conf_int(alpha=0.1)[0]
    p = np.sort(rng.uniform(0, 0.2, 9)).round(4)
    rng.shuffle(p)
    print(
        json.dumps(
            {
                "version": statsmodels.__version__,
                "cluster": {
                    "d": d.tolist(),
                    "clusters": clusters.tolist(),
                    "mean": fit.params[0],
                    "se": fit.bse[0],
                    "low": low,
                    "high": high,
                    "p_two_sided": fit.pvalues[0],
                },
                "holm": {"p": p.tolist(), "adjusted": multipletests(p, method="holm")[1].tolist()},
                "mcnemar": [
                    [w, b, float(mcnemar([[0, w], [b, 0]], exact=True).pvalue)] for w, b in [(5, 1), (12, 3), (40, 22), (7, 7)]
                ],
                "power": [
                    [effect, n, float(TTestPower().power(effect, n, 0.05, alternative="larger"))]
                    for effect, n in [(0.2, 30), (0.5, 20), (0.8, 12), (0.1, 200)]
                ],
                "clopper": [
                    [k, n, *map(float, proportion_confint(k, n, 0.1, "beta"))] for k, n in [(0, 59), (3, 40), (17, 20)]
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
