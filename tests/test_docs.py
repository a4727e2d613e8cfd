"""The documentation is true: its commands parse, its Python compiles, its links and tests exist.

`-m slow` runs every command and every Python block that needs neither a network nor a cluster, on a
tiny model, in the order of the page.
"""

import argparse
import ast
import contextlib
import gzip
import importlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from support.doc_blocks import (
    PAGES,
    ROOT,
    anchors,
    blocks,
    commands,
    defined_tests,
    inline_commands,
    links,
    named_tests,
)

from m3jax.cli.main import COMMANDS, main, make_parser
from m3jax.data.sample import sample_passages

BASH = [block for page in PAGES for block in blocks(page, "bash")]
PYTHON = [block for page in PAGES for block in blocks(page, "python")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))
# Programs that a block may start beside m3jax.
PROGRAMS = {
    "pip",
    "python",
    "srun",
    "cat",
    "echo",
    "git",
    "ruff",
    "codespell",
    "pyright",
    "pre-commit",
}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def parse(words: list[str]) -> argparse.Namespace:
    """The options of `m3jax ...`; the test fails with argparse's own words."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        try:
            return make_parser(words).parse_args(words)
        except SystemExit:
            pytest.fail(f"m3jax {shlex.join(words)}: {errors.getvalue().splitlines()[-1]}")


def option_names(words: list[str]) -> set[str]:
    """Every option of the command (and action) that `words` begin with."""
    parser = make_parser(words[:1])
    names: set[str] = set()
    for word in [*words[:2], None]:
        names |= {name for action in parser._actions for name in action.option_strings}
        subs = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
        if not subs or word not in subs[0].choices:
            break
        parser = subs[0].choices[word]
    return names


@pytest.mark.parametrize("block", BASH, ids=str)
def test_shell_blocks_parse(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(block):
        words = words[words.index("m3jax") :] if "m3jax" in words else words
        if words[0] == "m3jax":
            options = parse(words[1:])
            if options.command == "train":
                from m3jax.cli.train import read_config

                options.model = options.model or "MODEL"
                read_config(options)  # the file is there, and every --set names a field
            continue
        assert words[0] in PROGRAMS, f"{block}: {words[0]}"
        for word in words[1:]:
            assert not word.endswith(".py") or (ROOT / word).is_file(), f"no file {word}"
        if "install" in words:
            check_extras(words)


def check_extras(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for word in words:
        found = re.fullmatch(r"(?:m3jax|\.)\[([\w,]+)\]", word)
        if found:
            assert set(found[1].split(",")) <= set(project["optional-dependencies"]), word


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_within_text_have_these_options(page):
    for text in inline_commands(page):
        words = re.sub(r"[\[\]]", " ", text[text.index("m3jax") :]).split()[1:]
        assert words[0] in COMMANDS, text
        known = option_names(words[:2])
        used = {word.split("=")[0].strip('"') for word in words if word.startswith("--")}
        assert used <= known, f"{page.name}: {text}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_blocks_compile_and_import_what_exists(block):
    check_imports(ast.parse(block.text, filename=str(block)), str(block))


def check_imports(tree: ast.AST, where: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module != "IPython.display":  # Jupyter's own
            module = importlib.import_module(str(node.module))
            for alias in node.names:
                assert hasattr(module, alias.name), f"{where}: {node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page):
    for target in links(page):
        path, _, anchor = target.partition("#")
        assert (page.parent / path).exists(), f"{page.name} links to {path}, which is not there"
        if anchor and path.endswith(".md"):
            assert anchor in anchors(page.parent / path), target
    text = page.read_text(encoding="utf-8")
    for anchor in re.findall(r"\]\(#([^)]+)\)", text):
        assert anchor in anchors(page), f"{page.name} has no heading #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_test_that_a_page_names_exists(page):
    for file, test in named_tests(page):
        assert test in defined_tests(file), f"{page.name} names {file}::{test}"


def test_pages_name_their_tests():
    """The pages that promise a test for each row do name some."""
    for name in ("DEVIATIONS.md", "ARCHITECTURE.md"):
        assert len(named_tests(ROOT / "docs" / name)) > 3


def test_the_picture_of_the_flow_is_the_one_its_script_draws():
    script = runpy.run_path(str(ROOT / "experiments" / "make_flow_svg.py"))
    assert (ROOT / "docs" / "flow.svg").read_text(encoding="utf-8") == script["picture"]()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_compile_import_what_exists_and_define_nothing_long(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    check_imports(tree, path.name)
    assert 'MODEL = "m3-mini"' in text and 'tags=["install"]' in text
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            assert (node.end_lineno or 0) - node.lineno < 5, f"{path.name}: {node.name}"


def test_the_examples_of_every_help_parse(monkeypatch):
    monkeypatch.chdir(ROOT)
    for name in COMMANDS:
        module = importlib.import_module(f"m3jax.cli.{name.replace('-', '_')}")
        text = module.EXAMPLES.replace("\\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if "m3jax" in words and "..." not in words[:4]:
                parse(words[words.index("m3jax") + 1 :])


def actions_of(command: str) -> list[list[str]]:
    """[command], or [command, action] for each of its actions."""
    (subs,) = (a for a in make_parser([command])._actions if a.dest == "command")
    inner = [
        a
        for a in subs.choices[command]._actions  # pyright: ignore
        if isinstance(a, argparse._SubParsersAction)
    ]
    return [[command]] + [[command, name] for a in inner for name in a.choices]


EVERY = [words for command in COMMANDS for words in actions_of(command)]


@pytest.mark.parametrize("words", [[], *EVERY], ids=" ".join)
def test_help_has_an_example_and_a_wrong_argument_a_readable_message(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    out = capsys.readouterr().out
    assert stop.value.code == 0 and "examples:\n  " in out and "m3jax " in out
    with pytest.raises(SystemExit) as stop:
        main([*words, "--no-such-option"])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("usage: m3jax") and "Traceback" not in error
    *_, examples, last = error.splitlines()
    assert "examples:" in error and examples.startswith("  ") and "error: " in last


def test_the_module_without_arguments_says_how_to_go_on():
    out = subprocess.run(
        [sys.executable, "-m", "m3jax"], capture_output=True, text=True, check=False
    )
    assert out.returncode == 2 and "usage: m3jax" in out.stderr
    assert "Traceback" not in out.stderr and "quickstart" in out.stderr


# ---- running them ------------------------------------------------------------------------------

# What a page's commands expect to find -> what makes it, in `stage`. Names become paths.
NAMES = {"BAAI/bge-m3": "MODEL", "path/to/xlm-roberta": "PLAIN", "multilingual-e5": "PLAIN"}
# A command that holds one of these is not run, for this reason.
NOT_RUN = {
    "pip": "installs packages",
    "pytest": "is this",
    "git": "changes the checkout",
    "ruff": "runs in CI",
    "pyright": "runs in CI",
    "pre-commit": "fetches its hooks",
    "hub": "asks the hub",
    "srun": "needs a cluster",
    "RERANKER": "needs a cross-encoder",
    "BAAI/bge-reranker-v2-m3": "needs a cross-encoder",
    "wiki.jsonl.zst": "needs a dump",
    "chat": "asks an endpoint",
    "train-v1.1.json": "needs SQuAD",
}
SMALL_STEPS = [
    "steps=2",
    "save_every=2",
    "evaluate_every=0",
    "data.group_size=2",
    "data.query_length=16",
    "data.passage_length=32",
    "data.length_boundaries=(32,)",
    "data.batch_sizes=(4,)",
    "compute.dtype=float32",
    "loss.self_distill_start=1",
    "step.sub_tokens=128",
]


@pytest.fixture
def stage(tmp_path, tmp_path_factory, monkeypatch):
    """A directory with the files that the pages speak of; the working directory of a test."""
    import jax
    from support.tiny import write_tiny_model

    write_tiny_model(tmp_path / "MODEL", layers=1, max_positions=8194)
    write_tiny_model(tmp_path / "PLAIN", layers=1, max_positions=514, heads=False)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    # As many passages as the ranks that `mine` passes over and takes.
    many = [passage.text[:60] for passage in sample_passages()]
    examples = [
        {"query": t[:20], "pos": [t], "neg": [many[i - 1], many[i - 2]]} for i, t in enumerate(many)
    ]
    texts = many[:16]
    corpus = [{"_id": f"d{i}", "title": "", "text": t} for i, t in enumerate(texts)]
    queries = [{"_id": f"q{i}", "text": t[:9]} for i, t in enumerate(texts)]
    write_lines(tmp_path / "train.jsonl", examples)
    for directory in (tmp_path / "TASKS", tmp_path / "MY-TASKS" / "one"):
        (directory / "qrels").mkdir(parents=True)
        write_lines(directory / "corpus.jsonl", corpus)
        write_lines(directory / "queries.jsonl", queries)
        rows = "".join(f"q{i}\td{i}\t1\n" for i in range(len(texts)))
        header = "query-id\tcorpus-id\tscore\n"
        (directory / "qrels" / "test.tsv").write_text(header + rows, encoding="utf-8")
    write_lines(tmp_path / "corpus.jsonl", corpus)
    write_lines(tmp_path / "texts.jsonl", corpus[:1])  # README's `echo`
    write_lines(tmp_path / "passages.jsonl", [{"text": p.text[:120]} for p in sample_passages()])
    data = (tmp_path / "corpus.jsonl").read_bytes()
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(data))
    first = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: first)
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: first)
    monkeypatch.setenv("M3JAX_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    # Commands make the same programs again and again: compiled once.
    kept = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in kept}
    for name, value in kept.items():
        jax.config.update(name, value)
    with jax.numpy_dtype_promotion("standard"):
        yield tmp_path
    for name, value in before.items():
        jax.config.update(name, value)


def write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def runnable(words: list[str]) -> bool:
    if any(word in NOT_RUN for word in words):
        return False
    return words[0] == "m3jax"


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "CONTRIBUTING.md"], ids=page_name)
def test_commands_run_in_the_order_of_the_page(page, stage, capsys):
    done = 0
    for block in blocks(page, "bash"):
        for words in commands(block):
            if not runnable(words):
                continue
            words = [NAMES.get(word, word) for word in words[1:]]
            clear_outputs(words, stage)
            if words[0] == "train":
                words += [part for field in SMALL_STEPS for part in ("--set", field)]
            code = main(words)
            assert code == 0, f"{block}: {shlex.join(words)}: {capsys.readouterr().err}"
            done += 1
    if not done:
        pytest.skip("no command of this page can run offline")


def clear_outputs(words: list[str], stage: Path) -> None:
    """A page writes `run` or `results` more than once; a reader would name another one."""
    for option in ("--workdir", "--output", "--html"):
        if option in words:
            path = stage / words[words.index(option) + 1]
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.{len(os.listdir(stage))}"))


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=page_name)
def test_python_runs_in_the_order_of_the_page(page, stage):
    names: dict = {}
    for block in blocks(page, "python"):
        text = block.text.replace("BAAI/bge-m3", "MODEL").replace('"m3-mini"', '"MODEL"')
        exec(compile(text, str(block), "exec"), names)
