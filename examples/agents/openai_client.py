# SPDX-License-Identifier: Apache-2.0
"""An agent that is one function, with the openai package: called every turn, returns its message.

pip install openai
export OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_API_KEY=none MODEL=Qwen3-8B
agentgym eval math.chain --model agent:examples/agents/openai_client.py:answer
"""

import os

from openai import OpenAI

# the ordinary client and no AsyncOpenAI: agentgym calls from many threads, and a client that lives as long as the module
# must not be bound to the event loop of one run
client = OpenAI(max_retries=5)


def answer(messages, tools):
    reply = client.chat.completions.create(
        model=os.environ.get("MODEL", "gpt-4o-mini"),
        messages=messages,
        **({"tools": tools} if tools else {}),
    )
    choice = reply.choices[0]
    # a plain `return choice.message` would do; like this, the record also has the tokens
    return {"message": choice.message.model_dump(exclude_none=True), "usage": reply.usage.model_dump() if reply.usage else {}}
