# SPDX-License-Identifier: Apache-2.0
"""A smolagents agent that drives its episode itself: the environment's tools become smolagents tools.

pip install smolagents openai
export OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_API_KEY=none MODEL=Qwen3-8B
agentgym eval math.chain --model agent:examples/agents/smolagents_agent.py:run
"""

import json
import os

from smolagents import OpenAIServerModel, Tool, ToolCallingAgent


class EnvironmentTool(Tool):
    """A tool that is run by the environment: calling it plays a turn."""

    skip_forward_signature_validation = True
    output_type = "string"

    def __init__(self, session, spec):
        function = spec["function"]
        parameters = function["parameters"]
        self.name = function["name"]
        self.description = function["description"]
        self.inputs = {
            name: {
                "type": schema.get("type", "any"),
                "description": schema.get("description", name),
                **({} if name in parameters.get("required", ()) else {"nullable": True}),
            }
            for name, schema in parameters.get("properties", {}).items()
        }
        self.session = session
        super().__init__()

    def forward(self, **arguments):
        given = {k: v for k, v in arguments.items() if v is not None}
        call = {"id": "", "type": "function", "function": {"name": self.name, "arguments": json.dumps(given)}}
        new = self.session.send({"role": "assistant", "content": None, "tool_calls": [call]})
        if self.session.done:
            self.interrupt()  # or smolagents would go on asking its model
        return "\n".join(m["content"] for m in new)


def run(session):
    model = OpenAIServerModel(os.environ.get("MODEL", "gpt-4o-mini"), api_base=os.environ.get("OPENAI_BASE_URL"))
    tools = [EnvironmentTool(session, t) for t in session.tools]
    agent = ToolCallingAgent(tools=tools, model=model, max_steps=12, verbosity_level=0)
    for tool in tools:
        tool.interrupt = agent.interrupt
    try:
        result = agent.run("\n\n".join(m["content"] for m in session.messages))
    except Exception:
        if session.done:  # smolagents reports the interruption like this
            return None
        raise
    return None if session.done else str(result)
