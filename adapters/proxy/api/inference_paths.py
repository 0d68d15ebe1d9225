"""Paths of inference requests, and the prefix that each loses on its way to a model's server."""

from __future__ import annotations

from collections.abc import Mapping

_BODY_PATHS = (
    "/v1/chat/completions", "/v1/responses", "/v1/completions", "/v1/messages",
    "/v1/messages/count_tokens", "/v1/embeddings", "/reranking", "/rerank", "/v1/rerank",
    "/v1/reranking", "/infill", "/completion", "/v1/audio/speech", "/v1/audio/voices",
    "/v1/images/generations", "/sdapi/v1/txt2img", "/sdapi/v1/img2img",
    "/v1/audio/transcriptions", "/v1/images/edits",
    # paths that llama-server, vLLM and others have besides those of llama-swap
    "/chat/completions", "/completions", "/responses", "/embeddings", "/embedding",
    "/chat/completions/input_tokens", "/v1/chat/completions/input_tokens",
    "/responses/input_tokens", "/v1/responses/input_tokens",
    "/tokenize", "/detokenize", "/apply-template", "/audio/transcriptions",
    "/v1/audio/translations", "/v1/images/variations", "/v1/moderations",
    "/score", "/v1/score", "/classify", "/pooling", "/v2/rerank", "/v2/embed",
)  # fmt: skip

#: The same without a version, for clients that prepend one of their own; ``/v`` is removed.
_VERSIONLESS = (
    "/v/chat/completions", "/v/responses", "/v/completions", "/v/messages",
    "/v/messages/count_tokens", "/v/embeddings", "/v/rerank", "/v/reranking",
)  # fmt: skip

#: POST routes whose body names the model -> prefix that is removed from the path.
POST_PATHS: Mapping[str, bytes] = {
    **dict.fromkeys(_BODY_PATHS, b""),
    **dict.fromkeys(_VERSIONLESS, b"/v"),
    "/audioapi/v1/tasks/run": b"/audioapi",
}

#: GET routes whose query names the model.
GET_PATHS = ("/v1/audio/voices", "/sdapi/v1/loras", "/props", "/lora-adapters")

#: POST routes that change a model's server, and what they change; they need ``admin``.
SERVER_POST_PATHS: Mapping[str, str] = {
    "/props": "properties of the model's server",
    "/lora-adapters": "adapters of the model's server",
    "/slots/*": "saved and cached prompts of the model's server",
}

#: GET routes whose query names the model and whose responses may hold requests of other clients;
#: they need ``admin``.
SERVER_GET_PATHS = ("/slots",)

#: All inference paths, also below ``/upstream/<model>``.
MODEL_PATHS = frozenset((*POST_PATHS, *GET_PATHS))

#: Paths below ``/comfyui`` whose POST runs a workflow; any other one changes the server.
_COMFYUI_POSTS = frozenset(
    f"{prefix}{path}"
    for prefix in ("/", "/api/")
    for path in ("prompt", "upload/image", "upload/mask")
)


def is_inference(method: str, path: str) -> bool:
    """Return True if *method* and *path*, below ``/upstream/<model>``, are an inference request.

    Every other request is about the model's server. Paths are compared as received: one with an
    escape, a second slash or another case is another path.
    """
    if method == "POST":
        return path in POST_PATHS
    return method in ("GET", "HEAD") and path in GET_PATHS


def is_comfyui_use(method: str, path: str) -> bool:
    """Return True if *method* and *path*, below ``/comfyui``, read it or run a workflow."""
    return method in ("GET", "HEAD") or (method == "POST" and path in _COMFYUI_POSTS)
