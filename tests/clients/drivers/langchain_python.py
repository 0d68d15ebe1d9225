"""Driver of LangChain with langchain-openai."""

from __future__ import annotations

from typing import Any

from driver import RESULT, TOOL, run
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings


def make(base: str, key: str) -> Any:
    """Return what the library does, with its default of retries."""
    place: Any = {"base_url": f"{base}/v1", "api_key": key}

    def chat(model: str, text: str) -> dict[str, Any]:
        return {"text": ChatOpenAI(model=model, **place).invoke(text).content}

    def stream(model: str, text: str) -> dict[str, Any]:
        pieces = [chunk.content for chunk in ChatOpenAI(model=model, **place).stream(text)]
        return {"pieces": [piece for piece in pieces if piece]}

    def tools(model: str, text: str) -> dict[str, Any]:
        function = {"name": "pick", "description": "picks a thing", "parameters": TOOL}
        tool = {"type": "function", "function": function}
        bound = ChatOpenAI(model=model, **place).bind_tools([tool])
        asked = HumanMessage(text)
        message = bound.invoke([asked])
        (call,) = message.tool_calls
        last = bound.invoke([asked, message, ToolMessage(RESULT, tool_call_id=call["id"])])
        return {"arguments": call["args"], "text": last.content}

    def embeddings(model: str, text: str) -> dict[str, Any]:
        # With the check, it counts tokens by a table that it downloads, and sends their numbers.
        embedder = OpenAIEmbeddings(model=model, check_embedding_ctx_length=False, **place)
        return {"size": len(embedder.embed_query(text))}

    return {"chat": chat, "stream": stream, "tools": tools, "embeddings": embeddings}


run(make)
