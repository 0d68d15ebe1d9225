"""Ollama's API below ``/ollama/``, and on the listener of `ollama.listen`.

A handler decodes the body of a request (`bodies`), translates it to OpenAI's API
(`translation`, `options`) and makes a `Forwarding` of it: queue, swaps, filters, records and limits
are those of every other request. A `Responder` is the ``send`` of that forwarding; it translates
what the model's server sends, JSON or an event stream, by an `Answer` into JSON lines.

Source: the documentation of the API in the repository of Ollama, and its Python client.
"""
