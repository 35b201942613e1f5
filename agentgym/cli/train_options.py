# SPDX-License-Identifier: Apache-2.0
"""The options of `agentgym train`."""

from __future__ import annotations

import argparse
from typing import Any


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    p = commands.add_parser(
        "train",
        help="train a model on tasks by GRPO, with held-out tasks before and after",
        usage="agentgym train [options] FAMILY [FAMILY ...]",
        description="Lets a model learn from its own episodes (GRPO, by TRL). Tasks of the half `eval` are never trained\n"
        "on; they are played greedily before and after. Every rollout is on record: `agentgym view` replays the training.",
        epilog="""examples:
  agentgym train math.add -T level=3 -T round=true --warm-start oracle:honest
  agentgym train tools.lookup --model hf:models/qwen --warm-start oracle:honest --max-tokens 64
  agentgym train math.add --control random
  agentgym train --resume

needs: pip install 'agentgym-harness[trl]'
exit codes: 0 trained; 2 wrong usage, or a package is missing; 12 infrastructure; 130 stopped by Ctrl-C; 143 by SIGTERM
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    p.add_argument("families", nargs="*", metavar="FAMILY", help="what to train on, e.g. math.add or tools.lookup:level=2")
    p.add_argument("-m", "--model", metavar="KIND:NAME", help="local:smollm2 (default), gguf:FILE or hf:FOLDER")
    p.add_argument("-T", action="append", default=[], dest="params", metavar="NAME=VALUE", help="environment parameter")
    p.add_argument("--variant", default="control", metavar="NAME", help="twin to train on (control)")
    how = p.add_argument_group("how")
    how.add_argument("--steps", type=int, default=45, metavar="N", help="updates (45)")
    how.add_argument("--tasks", type=int, default=4, dest="tasks_per_step", metavar="N", help="tasks of a step (4)")
    how.add_argument("--group", type=int, default=8, metavar="G", help="episodes of each task in a step (8)")
    how.add_argument("--rate", type=float, default=1.5e-5, metavar="X", help="learning rate (1.5e-5)")
    how.add_argument("--max-tokens", type=int, default=8, metavar="N", help="most new tokens a turn (8)")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of sampling and order (0)")
    how.add_argument("--threads", type=int, metavar="N", help="threads of torch (its own choice)")
    how.add_argument(
        "--warm-start", metavar="MODEL", help="imitate this model's episodes first, e.g. oracle:honest; tool tasks need it"
    )
    how.add_argument("--warm-steps", type=int, default=3, metavar="N", help="updates of imitation (3); tool tasks take more")
    how.add_argument("--warm-rate", type=float, default=2e-5, metavar="X", help="learning rate of imitation (2e-5)")
    how.add_argument("--accelerate-config", metavar="FILE", help="run under `accelerate launch` with this configuration")
    what = p.add_argument_group("what it is compared with")
    what.add_argument("--held-out", type=int, default=200, metavar="N", help="held-out tasks, before and after (200); 0: none")
    what.add_argument(
        "--control", choices=("none", "random", "format"), default="none",
        help="pay a coin's toss, or the format alone, instead of the reward: what is gained then was not learnt from it",
    )  # fmt: skip
    out = p.add_argument_group("where it goes")
    out.add_argument("--runs", metavar="DIR", help="folder of runs (default $AGENTGYM_RUNS, else runs/)")
    out.add_argument("--save-every", type=int, default=15, metavar="N", help="steps between checkpoints (15)")
    out.add_argument("--resume", nargs="?", const="latest", metavar="RUN", help="go on from the last checkpoint of a training")
    out.add_argument("--json", action="store_true", help="a line of JSON for each step, and one with the result last")
    out.add_argument("-q", "--quiet", action="store_true", help="the result alone")
    out.add_argument("-v", "--verbose", action="store_true", help="tracebacks of errors")
