"""Metrics for Prometheus: ``/metrics`` of the proxy, and ``/metrics/models`` of what it runs.

`handlers` has the two handlers, and `page` what they send. `host` has llama-swap's names;
`requests`, `models` and `memory` have swapchart's, by Prometheus' conventions. `scrape` reads the
metrics of the models' servers, and `relabel` makes one page of them.
"""
