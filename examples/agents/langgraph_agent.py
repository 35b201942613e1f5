# SPDX-License-Identifier: Apache-2.0
"""A LangGraph agent that drives its episode itself: one node asks the model, one plays a turn.

pip install langgraph langchain-openai
export OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_API_KEY=none MODEL=Qwen3-8B
agentgym eval math.chain --model agent:examples/agents/langgraph_agent.py:run
"""

import os

from langchain_core.messages import convert_to_openai_messages
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, MessagesState, StateGraph

model = ChatOpenAI(model=os.environ.get("MODEL", "gpt-4o-mini"), max_retries=5)


def as_openai(message):
    row = convert_to_openai_messages(message)
    # calls whose arguments are no JSON are left out by LangChain; the environment is to see them and to answer
    broken = [
        {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["args"]}}
        for c in message.invalid_tool_calls
    ]
    return {**row, "tool_calls": [*row.get("tool_calls", []), *broken]}


# not async: ChatOpenAI shares its connections between all of its objects, and those of an async one would be bound to the
# event loop of the first run
def run(session):
    bound = model.bind_tools(session.tools) if session.tools else model

    def think(state: MessagesState):
        return {"messages": [bound.invoke(state["messages"])]}

    def act(state: MessagesState):
        message = state["messages"][-1]
        used = message.usage_metadata or {}
        usage = {"prompt_tokens": used.get("input_tokens"), "completion_tokens": used.get("output_tokens")}
        return {"messages": session.send(as_openai(message), usage=usage)}

    graph = StateGraph(MessagesState)
    graph.add_node("think", think)
    graph.add_node("act", act)
    graph.add_edge(START, "think")
    graph.add_edge("think", "act")
    graph.add_conditional_edges("act", lambda state: END if session.done else "think")
    # the environment counts the turns and ends the episode
    graph.compile().invoke({"messages": session.messages}, {"recursion_limit": 10_000})
