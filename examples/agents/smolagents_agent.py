# SPDX-License-Identifier: Apache-2.0
"""A smolagents agent that drives its episode itself: the environment's tools become smolagents tools.

pip install smolagents openai
export OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_API_KEY=none MODEL=Qwen3-8B
agentgym eval math.chain --model agent:examples/agents/smolagents_agent.py:run
"""

import json
import os

from smolagents import AgentError, LogLevel, OpenAIModel, Tool, ToolCallingAgent


class Model(OpenAIModel):
    """Keeps what smolagents does not hand on to tools and callers: words beside a call, tokens, why a request failed."""

    text, prompt_tokens, completion_tokens, failure = None, 0, 0, None

    def generate(self, *args, **kwargs):
        try:
            message = super().generate(*args, **kwargs)
        except Exception as e:
            self.failure = e
            raise
        self.text = message.content
        self.prompt_tokens += message.token_usage.input_tokens
        self.completion_tokens += message.token_usage.output_tokens
        return message

    def take(self):
        """The words, and the tokens since the last turn."""
        taken = self.text, {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        self.text, self.prompt_tokens, self.completion_tokens = None, 0, 0
        return taken


class EnvironmentTool(Tool):
    """A tool that is run by the environment: calling it plays a turn."""

    skip_forward_signature_validation = True
    output_type = "string"

    def __init__(self, session, model, spec):
        function = spec["function"]
        parameters = function["parameters"]
        self.name = function["name"]
        self.description = function["description"]
        self.inputs = {
            name: {
                "type": "any",
                "description": name,
                **schema,
                **({} if name in parameters.get("required", ()) else {"nullable": True}),
            }
            for name, schema in parameters.get("properties", {}).items()
        }
        self.session = session
        self.model = model
        super().__init__()

    def forward(self, broken="", /, **arguments):
        if self.session.done:  # another call of the same message has ended the episode
            return ""
        # smolagents hands over a text where the arguments are no JSON
        arguments = broken or json.dumps({k: v for k, v in arguments.items() if v is not None})
        call = {"id": "", "type": "function", "function": {"name": self.name, "arguments": arguments}}
        text, usage = self.model.take()
        new = self.session.send({"role": "assistant", "content": text, "tool_calls": [call]}, usage=usage)
        return "\n".join(m["content"] for m in new)


def run(session):
    # retry=False: the client tries again already, and smolagents would then wait for minutes
    model = Model(os.environ.get("MODEL", "gpt-4o-mini"), client_kwargs={"max_retries": 5}, retry=False)

    def stop_at_the_end(step, agent):
        if session.done:
            agent.interrupt()  # or smolagents would go on asking its model

    agent = ToolCallingAgent(
        tools=[EnvironmentTool(session, model, t) for t in session.tools],
        model=model,
        max_steps=20,
        max_tool_threads=1,  # each call is a turn, and turns come one after the other
        step_callbacks=[stop_at_the_end],
        verbosity_level=LogLevel.OFF,
    )
    new, first = session.messages, True
    while not session.done:
        try:
            answer = agent.run("\n\n".join(m["content"] for m in new), reset=first)
        except AgentError:
            if session.done:  # the interruption
                return
            if not model.failure:
                raise
        if model.failure:  # without steps left, smolagents makes an answer of it
            raise model.failure
        if not session.done:
            # a final answer is a message to whoever gave the task; their reply, if any, is the next one
            new, first = session.send(str(answer), usage=model.take()[1]), False
