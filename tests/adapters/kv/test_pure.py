"""The parts that decide: what a launch line means, what to keep, what is proven. No process."""

from __future__ import annotations

import json
import math
import struct
from array import array
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapchart.adapters.kv.effectiveness import CacheUsage, Effectiveness, cache_usage
from swapchart.adapters.kv.entry import Entry, by_value, choose
from swapchart.adapters.kv.fingerprint import fingerprint
from swapchart.adapters.kv.run_statistics import RunStatistics
from swapchart.adapters.kv.token_file import common_prefix, read_tokens
from swapchart.adapters.llama_cpp.launch_args import LaunchLine, relevant_variables

Saved = tuple[Entry, "array[int] | None"]


def entry(file: str, tokens: int, *, misses: int = 0, saved_at: float = 0.0) -> Entry:
    return Entry(
        file=file, fingerprint="f", tokens=tokens, size=tokens * 10, sha256="0", saved_at=saved_at,
        save_ms=1.0, misses=misses,
    )  # fmt: skip


def saved(file: str, tokens: list[int], misses: int = 0) -> Saved:
    return entry(file, len(tokens), misses=misses), array("i", tokens)


def line(text: str) -> LaunchLine:
    return LaunchLine.parse(text.split())


# ---- the launch line
@pytest.mark.parametrize(
    "text",
    [
        "llama-server --port 2", "llama-server --host ::1 --port 1", "llama-server --alias x -a y",
        "llama-server --slot-save-path /other", "llama-server -lv 9 --log-file x --verbose",
        "llama-server --threads 3 -tb 2", "llama-server --temp 0.5 --seed -1 --metrics --props",
        "llama-server --api-key secret", "llama-server -sps 0.9 --cache-ram 0 --no-warmup",
        "llama-server --chat-template chatml --jinja", "/opt/bin/llama-server",
    ],
)  # fmt: skip
def test_fingerprint_ignores_irrelevant_options(text: str) -> None:
    assert line(text).relevant() == []


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("-c 4096", "-c 8192"), ("-np 1", "-np 2"), ("-ctk f16", "-ctk q8_0"),
        ("-ctv f16", "-ctv q8_0"), ("-fa on", "-fa off"), ("", "--swa-full"), ("", "-kvu"),
        ("", "--no-cache-prompt"), ("--rope-scale 1", "--rope-scale 2"),
        ("--yarn-orig-ctx 1", "--yarn-orig-ctx 2"), ("-ngl 0", "-ngl 99"), ("", "--embeddings"),
        ("--lora-scaled a.gguf:0.5", "--lora-scaled a.gguf:0.7"), ("", "--what-nobody-knows 3"),
        ("--override-kv a=int:1", "--override-kv a=int:2"),
    ],
)  # fmt: skip
def test_fingerprint_includes_relevant_options(one: str, two: str) -> None:
    assert line(f"x {one}").relevant() != line(f"x {two}").relevant()


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("-c 4096 -np 2", "--parallel 2 --ctx-size 4096"), ("-fa on", "--flash-attn on"),
        ("--ctx-size=4096", "--ctx-size 4096"), ("--ctx_size 4096", "--ctx-size 4096"),
        ("-ngl 9", "--n-gpu-layers 9"), ("-no-kvu", "--no-kv-unified"),
    ],
)  # fmt: skip
def test_fingerprint_ignores_spelling_and_order(one: str, two: str) -> None:
    assert line(f"x {one}").relevant() == line(f"x {two}").relevant()


def test_fingerprint_takes_files_by_content() -> None:
    """Where they lie says nothing; and each of several is looked at."""
    parsed = line("x -m a.gguf --lora b.gguf,c.gguf --lora-scaled d.gguf:0.5 --mmproj e.gguf")

    assert parsed.files() == [
        ("--model", "a.gguf"), ("--lora", "b.gguf"), ("--lora", "c.gguf"),
        ("--lora-scaled", "d.gguf"), ("--mmproj", "e.gguf"),
    ]  # fmt: skip
    assert not any("gguf" in text for text in parsed.relevant())


def test_fingerprint_takes_a_negative_number_as_value() -> None:
    assert line("x -n -1 --ctx-size 0").value("-n") == "-1"


@given(st.lists(st.text(min_size=0, max_size=8), max_size=12))
def test_fingerprint_of_any_command_line_never_raises(argv: list[str]) -> None:
    parsed = LaunchLine.parse(argv)
    parsed.relevant()
    parsed.files()

    assert parsed.program == (argv[0] if argv else "")


def test_fingerprint_includes_variables_of_llama_server() -> None:
    given_ = {"LLAMA_ARG_CTX_SIZE": "1", "LLAMA_ARG_PORT": "2", "PATH": "x", "HOME": "y"}

    assert relevant_variables(given_) == ["LLAMA_ARG_CTX_SIZE=1"]


def test_fingerprint_difference_names_what_changed() -> None:
    props = {"build_info": "b1", "total_slots": 2, "default_generation_settings": {"n_ctx": 4096}}

    def of(text: str = "x -np 2", **more: object) -> object:
        return fingerprint(line(text), {}, {**props, **more}, binary="b", files={"--model": "1"})

    base = fingerprint(line("x -np 2"), {}, props, binary="b", files={"--model": "1"})
    other = fingerprint(line("x -np 2"), {}, props, binary="b", files={"--model": "2"})

    assert base.key == fingerprint(line("x --port 9 --parallel 2"), {}, props, binary="b",
                                   files={"--model": "1"}).key  # fmt: skip
    assert base.key != other.key
    assert base.differences(other.facts) == ["file --model: 2 -> 1"]
    more = fingerprint(line("x -np 2 -fa off"), {}, props, binary="b", files={"--model": "1"})
    assert more.differences(base.facts) == ["options: none -> --flash-attn off"]
    same = {"props": props, "binary": "b", "files": {"--model": "1"}}
    for change in ({"binary": "c"}, {"adapters": '[{"id": 0, "scale": 0.5}]'}):
        assert fingerprint(line("x -np 2"), {}, **{**same, **change}).key != base.key  # type: ignore[arg-type]
    variables = {"LLAMA_ARG_CACHE_TYPE_K": "q8_0"}
    assert fingerprint(line("x -np 2"), variables, **same).key != base.key  # type: ignore[arg-type]
    assert of(build_info="b2") != base
    assert of(total_slots=3) != base
    assert of("x -np 2 -fa off") != base


# ---- tokens
@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> pytest.TempPathFactory:
    return tmp_path_factory


def slot_file(path: Path, words: list[int], *, magic: int = 0x67677371) -> Path:
    path.write_bytes(struct.pack(f"<III{len(words)}i", magic, 2, len(words), *words) + b"state")
    return path


def test_slot_tokens_are_read_from_both_layouts(tmp_path: Path) -> None:
    plain = slot_file(tmp_path / "plain", [5, 6, 7])
    packed = slot_file(tmp_path / "packed", [-1, 1, 3, 5, 6, 7, 0])

    assert list(read_tokens(plain, 3) or ()) == [5, 6, 7]
    assert list(read_tokens(packed, 3) or ()) == [5, 6, 7]


def test_slot_file_that_is_invalid_has_no_tokens(tmp_path: Path) -> None:
    foreign = slot_file(tmp_path / "foreign", [5, 6, 7], magic=1)
    other = slot_file(tmp_path / "other", [5, 6, 7])
    huge = tmp_path / "huge"
    huge.write_bytes(struct.pack("<III", 0x67677371, 2, 1 << 31))

    assert read_tokens(foreign, 3) is None
    assert read_tokens(other, 4) is None
    assert read_tokens(huge, 4) is None


@given(st.binary(max_size=200), st.integers(0, 50))
def test_slot_file_of_any_bytes_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, n: int
) -> None:
    path = tmp_path_factory.mktemp("slot") / "file"
    path.write_bytes(data)
    tokens = read_tokens(path, n)

    assert tokens is None or len(tokens) == n


NUMBERS = st.lists(st.integers(0, 3), max_size=40)


@given(NUMBERS, NUMBERS)
def test_common_prefix_is_the_longest(one: list[int], two: list[int]) -> None:
    shared = common_prefix(array("i", one), array("i", two))

    assert one[:shared] == two[:shared]
    assert one[: shared + 1] != two[: shared + 1] or shared == min(len(one), len(two))


# ---- what to keep
def test_selection_small_prompt_does_not_replace_a_conversation() -> None:
    """Issue: a small housekeeping prompt never overwrites a valuable save."""
    choice = choose([saved("old", [1] * 100)], [saved("new", [2] * 30)], limit=1)

    assert [kept.file for kept in choice.kept] == ["old"]
    assert choice.kept[0].misses == 1
    assert [gone.file for gone in choice.dropped] == ["new"]


def test_selection_longer_conversation_replaces_its_save() -> None:
    for tokens in ([1] * 120, [1] * 80 + [2] * 5, [1] * 60):
        choice = choose([saved("old", [1] * 100 + [9])], [saved("new", [*tokens, 3])], limit=4)

        assert [kept.file for kept in choice.kept] == ["new"]


def test_selection_prefix_of_a_saved_conversation_is_not_saved() -> None:
    """A request that only began the conversation again, such as one that was cancelled."""
    choice = choose([saved("old", [1] * 100 + [9])], [saved("new", [1] * 40)], limit=4)

    assert [kept.file for kept in choice.kept] == ["old"]


def test_selection_shared_system_prompt_keeps_two_conversations() -> None:
    """Each new one replaces the old one that is most like it, and no other."""
    prompt = [1] * 60
    old = [saved("a", prompt + [2] * 30), saved("b", prompt + [3] * 30)]
    choice = choose(old, [saved("c", prompt + [2] * 40)], limit=4)

    assert {kept.file for kept in choice.kept} == {"c", "b"}


def test_selection_unknown_tokens_are_another_conversation() -> None:
    old, new = (entry("old", 100), None), (entry("new", 90), None)

    assert [kept.file for kept in choose([old], [new], limit=2).kept] == ["new", "old"]


ENTRIES = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=1, max_size=30), st.integers(0, 5)), max_size=6
)


@given(ENTRIES, ENTRIES, st.integers(1, 4))
def test_selection_keeps_its_invariants(
    old: list[tuple[list[int], int]], new: list[tuple[list[int], int]], limit: int
) -> None:
    """Everything is kept or dropped, never more than the limit, and the best come first."""
    before = [saved(f"o{i}", tokens, misses) for i, (tokens, misses) in enumerate(old)]
    after = [saved(f"n{i}", tokens) for i, (tokens, _) in enumerate(new)]
    choice = choose(before, after, limit)
    kept = [item.file for item in choice.kept]
    everything = {item.file for item, _ in [*before, *after]}

    assert len(kept) <= limit
    assert set(kept) | {item.file for item in choice.dropped} == everything
    assert not set(kept) & {item.file for item in choice.dropped}
    assert list(choice.kept) == by_value(choice.kept)
    assert bool(kept) == bool(everything)


def test_selection_value_halves_with_each_run_and_never_overflows() -> None:
    assert entry("a", 100, misses=2).value == 25.0
    assert entry("a", 100, misses=10_000).value > 0
    newer, older = entry("new", 100, saved_at=2.0), entry("old", 100, saved_at=1.0)
    assert by_value([older, newer]) == [newer, older]


# ---- proof
ANSWERS = {
    "llama": b'{"choices":[],"usage":{"completion_tokens":4,"prompt_tokens":40,"prompt_tokens_'
    b'details":{"cached_tokens":30}},"timings":{"cache_n":30,"prompt_n":10,"prompt_ms":5.5,'
    b'"predicted_n":4}}',
    "stream": b'data: {"choices":[{"delta":{"content":"x"}}]}\n\ndata: {"choices":[],"timings":'
    b'{"cache_n":30,"prompt_n":10,"prompt_ms":5.5,"predicted_n":4}}\n\ndata: [DONE]\n\n',
    "openai": b'{"usage":{"completion_tokens":4,"prompt_tokens":40,"total_tokens":44,'
    b'"prompt_tokens_details":{"cached_tokens":30}}}',
    "responses": b'{"usage":{"input_tokens":40,"output_tokens":4,"input_tokens_details":'
    b'{"cached_tokens":30}}}',
    "anthropic stream": b'data: {"type":"message_start","message":{"usage":{"cache_read_input_'
    b'tokens":30,"input_tokens":10,"output_tokens":0}}}\n\ndata: {"type":"content_block_delta"}'
    b'\n\n\ndata: {"type":"message_delta","usage":{"output_tokens":4}}\n\n',
    "anthropic": b'{"usage":{"cache_read_input_tokens":30,"input_tokens":10,"output_tokens":4}}',
}


@pytest.mark.parametrize("name", ANSWERS)
def test_cache_usage_is_read_from_each_dialect(name: str) -> None:
    ms = 5.5 if name in ("llama", "stream") else None

    assert cache_usage(ANSWERS[name]) == CacheUsage(cached=30, read=10, written=4, read_ms=ms)


def test_cache_usage_ignores_the_generated_text() -> None:
    text = 'say "cache_n":999, "prompt_n":999'
    data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()

    assert cache_usage(data) is None
    assert cache_usage(data + ANSWERS["llama"]) == cache_usage(ANSWERS["llama"])
    assert cache_usage(b"") is None


@given(st.binary(max_size=300))
def test_cache_usage_of_any_response_never_raises(data: bytes) -> None:
    cache_usage(data)
    cache_usage(ANSWERS["llama"] + data)


def run_with(*tokens: int) -> tuple[RunStatistics, Effectiveness]:
    run = RunStatistics(fingerprint="f")
    run.restored = {number: entry(f"e{number}", count) for number, count in enumerate(tokens)}
    return run, Effectiveness()


def note(run: RunStatistics, record: Effectiveness, cached: int, read: int) -> None:
    run.ended += 1
    run.note(CacheUsage(cached=cached, read=read, written=2), record)


def test_effectiveness_hit_is_half_of_the_restored_tokens() -> None:
    for cached, verdict in ((500, "works"), (499, "partial"), (100, "partial"), (99, "unknown")):
        run, record = run_with(1000)
        note(run, record, cached, 10)

        assert record.verdict == verdict


def test_effectiveness_reuse_within_one_run_proves_nothing() -> None:
    """The same prompt twice to a server that restores in name only."""
    run, record = run_with(1000)
    note(run, record, 0, 1000)
    note(run, record, 999, 1)

    assert record.verdict == "unknown"


def test_effectiveness_reuse_after_another_conversation_is_proof() -> None:
    run, record = run_with(1000)
    note(run, record, 0, 50)
    note(run, record, 999, 1)

    assert record.verdict == "works"


def test_effectiveness_run_counts_once() -> None:
    run, record = run_with(1000, 1000)
    note(run, record, 999, 1)
    note(run, record, 2000, 1)

    assert record.hits == 1


def test_effectiveness_conversation_evaluated_again_counts_twice_against() -> None:
    record = Effectiveness()
    old = [saved("e0", [1] * 100)]
    for _ in range(2):
        assert record.verdict == "unknown"
        run, _ = run_with(100)
        note(run, record, 0, 110)
        run.look_back(old, [saved("new", [1] * 112)], record)

    assert record.verdict == "no-op"


@pytest.mark.parametrize("why", ["an answer was not seen", "it did not go on", "nothing came"])
def test_effectiveness_ambiguous_response_disproves_nothing(why: str) -> None:
    run, record = run_with(100)
    if why != "nothing came":
        note(run, record, 0, 110)
    if why == "an answer was not seen":
        run.ended += 1
    after = [saved("new", [1 if why != "it did not go on" else 2] * 112)]
    if why == "nothing came":
        after = []
    run.look_back([saved("e0", [1] * 100)], after, record)

    assert record.failures == 0


def test_effectiveness_verdict_can_change() -> None:
    assert Effectiveness(hits=1, failures=5).verdict == "partial"
    assert Effectiveness(hits=5, failures=5).verdict == "works"
    assert Effectiveness(parts=1, failures=9).verdict == "partial"


def test_effectiveness_watches_a_bounded_number_of_responses() -> None:
    run, record = run_with(100)
    for _ in range(16):
        assert run.is_watching
        note(run, record, 0, 50)

    assert not run.is_watching


# ---- cost
def test_cost_unknown_refuses_no_save() -> None:
    assert Effectiveness().pays(10)
    assert Effectiveness(read_ms_per_token=0.001).pays(10)


def test_cost_above_the_benefit_refuses_the_save() -> None:
    record = Effectiveness()
    record.note_response(CacheUsage(cached=0, read=1000, read_ms=100.0))  # 0.1 ms a token
    record.note_save(1000, 100_000_000, 60.0)
    assert record.pays(1000)
    record.note_restore(100_000_000, 50.0)

    assert not record.pays(1000)
    assert record.pays(2000)  # what was measured is taken for a fixed cost before it is known


def test_cost_per_megabyte_is_learned_from_larger_saves() -> None:
    record = Effectiveness()
    record.note_save(1000, 1_000_000, 10.0)
    for _ in range(20):
        record.note_save(100_000, 100_000_000, 1000.0)

    assert record.cost_ms(100_000) == pytest.approx(1000.0, rel=0.1)
    assert record.cost_ms(1000) == pytest.approx(20.0, rel=0.1)


ANYTHING = st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.booleans())


@example({"bytes_per_token": math.inf})
@example({"bytes_per_token": 10**400})
@given(st.dictionaries(st.sampled_from([*Effectiveness.__slots__, "x"]), ANYTHING))
def test_manifest_of_any_json_can_be_loaded(value: dict[str, object]) -> None:
    record = Effectiveness.load(value)
    record.pays(100)
    record.expected_bytes(100)

    assert record.verdict in ("unknown", "works", "partial", "no-op")
