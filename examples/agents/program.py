# SPDX-License-Identifier: Apache-2.0
"""An agent that is a program, in any language: reads a line of JSON a turn, writes one. Nothing to install.

agentgym eval math.chain --model "cmd:python examples/agents/program.py"
"""

import json
import re
import sys

for line in sys.stdin:
    request = json.loads(line)
    puzzle = next(m["content"] for m in request["messages"] if m["role"] == "user")
    steps = re.findall(r"(add|subtract|multiply by|divide by) (\d+)", puzzle)
    sign = {"add": "+", "subtract": "-", "multiply by": "*", "divide by": "/"}
    results = [m["content"] for m in request["messages"] if m["role"] == "tool"]
    value = results[-1] if results else re.findall(r"\d+", puzzle)[0]
    if len(results) < len(steps):
        word, number = steps[len(results)]
        name, arguments = "calculator", {"expression": f"{value} {sign[word]} {number}"}
    else:
        name, arguments = "submit", {"answer": value}
    call = {"id": f"c{len(results)}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    print(f"turn {request['turn']}: {name}", file=sys.stderr)  # stdout is for answers
    print(json.dumps({"message": {"role": "assistant", "content": None, "tool_calls": [call]}}), flush=True)
