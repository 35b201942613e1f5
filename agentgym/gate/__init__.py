# SPDX-License-Identifier: Apache-2.0
"""The gate: whether a candidate is worse than a reviewed baseline, decided with error rates that are known.

How it fits together: `rows` is what is compared, and ``sources*`` read it from runs and from other tools' files;
`rules` is what is asked; `decide` turns the three into a `verdict`; ``report_*`` show that and decide nothing.

==================  ====================================================================================================
``decide.py``       ``decide(baseline: Rows, candidate: Rows, rules: Rules, *, today: date, canary: Rows | None) -> Verdict``
``plan.py``         ``plan(baseline: Rows, rules: Rules, *, power, delta) -> Plan``: clusters, tasks, trials, tokens, money
``selftest.py``     ``selftest(baseline: Rows, rules: Rules, *, runs, seed) -> SelfTest``: false-fail rate and power
``sequential.py``   ``Sequential``: stops a comparison early in both directions
==================  ====================================================================================================

``rules`` handed to them went through `rules.for_rows`, so that every metric of the rows has its rule.
"""
