# SPDX-License-Identifier: Apache-2.0
"""An agent program as anybody would write it, with nothing of agentgym in it but four requests: played through the proxy.

pip install openai
agentgym proxy tools.retail --limit 4 --model local:smollm2 -- python examples/proxy/agent.py
"""

import os

import httpx
from openai import OpenAI

client = OpenAI()  # OPENAI_BASE_URL and OPENAI_API_KEY are the proxy's
gym = httpx.Client(
    base_url=os.environ["AGENTGYM_URL"], headers={"Authorization": f"Bearer {os.environ['AGENTGYM_KEY']}"}, timeout=600
)

task = gym.get("/task").raise_for_status().json()
messages, done = task["messages"], False
while not done:
    reply = client.chat.completions.create(model="any", messages=messages, tools=task["tools"] or None)
    message = reply.choices[0].message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    step = gym.post("/step", json=message).raise_for_status().json()
    messages += [message, *step["messages"]]
    done = step["done"]
