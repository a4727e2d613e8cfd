"""Write questions for long articles with a language model, as the paper made MLDR.

Reads {"text", "title"?, "id"?, "lang"?} (of training examples, the positives), draws articles and
paragraphs by seed, asks for one question a paragraph, drops what is not worth training on, and
pairs what is left with the whole article: OUTPUT/train.jsonl.gz, with --shares also dev.jsonl.gz
and test.jsonl.gz, and report.json. Replies are kept in OUTPUT.replies.jsonl as they come in: after
a stop, the same command goes on and asks nothing twice.

Generators: chat (an endpoint that speaks OpenAI's protocol; the key is read from a variable and
stored nowhere), local (a directory with a causal language model), extractive (keywords of the
paragraph: no model, no network).
"""

import argparse

EXAMPLES = """\
examples:
  m3jax synthesize --input wiki.jsonl.zst --output long --generator chat --model NAME \\
      --tokenizer BAAI/bge-m3 --min-tokens 2000 --max-tokens 8192 --articles 3000 --dry-run
  m3jax synthesize --input wiki.jsonl.zst --output long --generator chat --model NAME \\
      --base-url http://localhost:8000/v1 --shares 0.9,0.05,0.05 --beir
  m3jax synthesize --input articles/ --output long --generator local --model DIR \\
      --check-model BAAI/bge-m3 --check-top-k 3
  m3jax synthesize --input articles.jsonl --output long --generator extractive
  m3jax evaluate --model BAAI/bge-m3 --task long/beir --output results
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `synthesize`."""
    add = parser.add_argument
    add("--input", nargs="+", required=True, metavar="PATH", help="files, directories, globs")
    add("--output", required=True, metavar="DIR", help="a new directory")
    add("--generator", required=True, choices=("chat", "local", "extractive"))
    add("--model", metavar="NAME|DIR", help="for chat its name, for local its directory")
    add("--source", default="synthetic", help="of the examples (default: %(default)s)")
    add("--cache", metavar="FILE", help="of replies (default: OUTPUT.replies.jsonl)")
    add("--seed", type=int, default=0)
    add("--skip-bad", type=int, default=0, metavar="N", help="leave out up to N bad records")
    add("--dry-run", action="store_true", help="count and estimate, ask and write nothing")
    add("--price-in", type=float, metavar="P", help="of a million prompt tokens, for --dry-run")
    add("--price-out", type=float, metavar="P", help="of a million tokens of replies")
    _add_articles(parser.add_argument_group("articles"))
    _add_generators(parser.add_argument_group("generators"))
    _add_filters(parser.add_argument_group("filters"))


def _add_articles(group) -> None:
    add = group.add_argument
    add("--tokenizer", metavar="MODEL", help="to measure lengths in tokens")
    add("--min-chars", type=int, default=2000, metavar="N", help="default: %(default)s")
    add("--max-chars", type=int, metavar="N", help="default: no limit")
    add("--min-tokens", type=int, default=0, metavar="N", help="needs --tokenizer")
    add("--max-tokens", type=int, metavar="N", help="needs --tokenizer")
    add("--languages", nargs="+", default=[], metavar="LANG", help="only these")
    add("--lang", default="", help="of records that name none")
    add("--articles", type=int, metavar="N", help="draw at most N a language (default: all)")
    add("--paragraphs", type=int, default=1, metavar="N", help="asked an article (default: 1)")
    add("--paragraph-size", type=int, nargs=2, default=[300, 2000], metavar=("MIN", "MAX"),
        help="characters; Chinese, Japanese, Korean ones count 3 (default: 300 2000)")  # fmt: skip
    add("--shares", default="1,0,0", metavar="TRAIN,DEV,TEST",
        help="of articles, by a hash of the text (default: 1,0,0)")  # fmt: skip
    add("--beir", action="store_true", help="dev and test also as tasks, OUTPUT/beir/LANG")


def _add_generators(group) -> None:
    add = group.add_argument
    add("--base-url", metavar="URL", help="default: OPENAI_BASE_URL")
    add("--key-env", default="OPENAI_API_KEY", metavar="VARIABLE", help="default: %(default)s")
    add("--no-key", action="store_true", help="the endpoint needs none")
    add("--parallel", type=int, default=4, metavar="N", help="requests at a time (default: 4)")
    add("--timeout", type=float, default=60.0, metavar="S", help="default: %(default)s")
    add("--retries", type=int, default=6, metavar="N",
        help="of busy and failing answers, with growing waits (default: %(default)s)")  # fmt: skip
    add("--max-wait", type=float, default=60.0, metavar="S",
        help="longest wait, whatever Retry-After says (default: %(default)s)")  # fmt: skip
    add("--temperature", type=float, default=0.0, help="default: %(default)s")
    add("--answer-tokens", type=int, default=200, metavar="N",
        help="most tokens of a reply (default: %(default)s)")  # fmt: skip
    add("--body", default="{}", metavar="JSON",
        help="more fields of the request; null takes one out")  # fmt: skip
    add("--batch-size", type=int, default=8, metavar="N", help="prompts a batch, for local")


def _add_filters(group) -> None:
    add = group.add_argument
    add("--shortest", type=int, default=15, metavar="N", help="size of a question (default: 15)")
    add("--longest", type=int, default=300, metavar="N", help="default: %(default)s")
    add("--script", type=float, default=0.5, metavar="SHARE",
        help="least share of letters in the language's script; 0: off (default: 0.5)")  # fmt: skip
    add("--max-title", type=float, default=0.7, metavar="SHARE",
        help="most of a question that its title holds; 1: off (default: %(default)s)")  # fmt: skip
    add("--max-copied", type=float, default=0.7, metavar="SHARE",
        help="most of a question in one run of its paragraph; 1: off (default: 0.7)")  # fmt: skip
    add("--check-model", metavar="MODEL",
        help="drop questions whose paragraph this model does not find")  # fmt: skip
    add("--check-top-k", type=int, default=3, metavar="K", help="default: %(default)s")


def run(options: argparse.Namespace) -> int:
    """Draws, asks, filters, writes, reports; or estimates."""
    from collections import Counter

    from m3jax.synthesize.synthesis import choose_paragraphs, requests_for, select, write

    sampling, plan, limits = _settings(options)
    output, cache = _places(options)
    endpoint = _endpoint(options) if options.generator == "chat" else None
    left_out: Counter[str] = Counter()
    articles, tokenizer = _articles(options, sampling, left_out)
    asked = choose_paragraphs(articles, plan, left_out)
    if not asked:
        raise ValueError(f"no article is left to ask about: {dict(left_out)}")
    requests = requests_for(asked)
    if options.dry_run:
        _print_articles(articles, left_out)
        _print_estimate(options, requests, cache, endpoint, tokenizer)
        return 0
    generator = _generator(options, endpoint, asked)
    ranks = _ranks(options.check_model, asked) if options.check_model else None
    replies = _ask(requests, generator, cache)
    questions, counts = select(asked, replies, plan, limits, ranks=ranks, top_k=options.check_top_k)
    report = _report(options, (sampling, plan, limits), articles, left_out, counts, replies)
    write(output, questions, articles, plan, report)
    _print_articles(articles, left_out)
    _print_counts(counts, questions)
    return 0


def _places(options: argparse.Namespace):
    """(output, cache of replies), before anything is asked: the output must be new."""
    from pathlib import Path

    output = Path(options.output)
    if output.is_file() or (output.is_dir() and any(output.iterdir())):
        raise FileExistsError(f"{output} already exists; name a new directory or remove it first")
    beside = output.with_name(f"{output.name}.replies.jsonl")
    cache = Path(options.cache) if options.cache else beside
    if output.resolve() in cache.resolve().parents:
        raise ValueError(f"{cache} lies in {output}, which must be new: put the cache elsewhere")
    return output, cache


def _settings(options: argparse.Namespace):
    """Everything that can be wrong in the arguments, before anything is read."""
    from m3jax.synthesize.articles import Sampling
    from m3jax.synthesize.questions import QuestionLimits
    from m3jax.synthesize.synthesis import Plan

    try:
        train, dev, test = map(float, options.shares.split(","))
    except ValueError:
        raise ValueError(f"--shares needs three numbers, got {options.shares!r}") from None
    if options.check_top_k < 1:
        raise ValueError(f"--check-top-k must be at least 1, got {options.check_top_k}")
    shortest, longest = options.paragraph_size
    sampling = Sampling(
        min_chars=options.min_chars, max_chars=options.max_chars, min_tokens=options.min_tokens,
        max_tokens=options.max_tokens, languages=tuple(options.languages),
        per_language=options.articles, seed=options.seed,
    )  # fmt: skip
    plan = Plan(
        per_article=options.paragraphs, shortest=shortest, longest=longest,
        shares=(train, dev, test), source=options.source, beir=options.beir, seed=options.seed,
    )  # fmt: skip
    limits = QuestionLimits(
        shortest=options.shortest, longest=options.longest, script=options.script,
        title=options.max_title, copied=options.max_copied,
    )  # fmt: skip
    return sampling, plan, limits


def _articles(options: argparse.Namespace, sampling, left_out):
    from m3jax.cli.options import load_tokenizer
    from m3jax.cli.tables import counting
    from m3jax.io.jsonl import BadRecords
    from m3jax.synthesize.articles import read_articles, sample

    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
    bad = BadRecords(options.skip_bad)
    with counting("articles read") as progress:

        def read():
            found = read_articles(options.input, bad, options.lang)
            for number, article in enumerate(found, start=1):
                yield article
                if number % 100 == 0:
                    progress(number)

        articles = sample(read(), sampling, left_out, tokenizer)
    if bad.count:
        left_out["bad record"] = bad.count
    return articles, tokenizer


def _endpoint(options: argparse.Namespace):
    import json
    import os

    from m3jax.synthesize.endpoint import Endpoint, is_local

    url = options.base_url or os.environ.get("OPENAI_BASE_URL", "")
    if options.dry_run:  # asks nobody
        url = url or "http://localhost"
    if not url:
        raise ValueError("no endpoint: name it with --base-url URL or set OPENAI_BASE_URL")
    try:
        body = json.loads(options.body)
    except ValueError as error:
        raise ValueError(f"--body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError(f"--body must be a JSON object, got {options.body}")
    key = "" if options.no_key else os.environ.get(options.key_env, "").strip()
    endpoint = Endpoint(
        base_url=url, model=options.model or "", key=key, temperature=options.temperature,
        max_tokens=options.answer_tokens, body=body, parallel=options.parallel,
        timeout=options.timeout, retries=options.retries, longest_wait=options.max_wait,
    )  # fmt: skip
    if not (key or options.no_key or options.dry_run or is_local(url)):
        raise ValueError(
            f"{options.key_env} is not set: put the key there, name another variable with "
            "--key-env, or say --no-key"
        )
    return endpoint


def _generator(options: argparse.Namespace, endpoint, asked):
    if endpoint is not None:
        from m3jax.synthesize.endpoint import chat_generator

        return chat_generator(endpoint)
    if options.generator == "local":
        from m3jax.synthesize.local import local_generator

        if not options.model:
            raise ValueError("--generator local needs --model DIR")
        return local_generator(
            options.model, temperature=options.temperature, max_tokens=options.answer_tokens,
            batch=options.batch_size,
        )  # fmt: skip
    from m3jax.synthesize.extractive import extractive_generator

    articles = {a.article.id: a.paragraphs for a in asked}
    return extractive_generator(p for paragraphs in articles.values() for p in paragraphs)


def _ask(requests, generator, cache):
    import sys

    from m3jax.cli.tables import counting
    from m3jax.synthesize.reply_cache import ask

    with counting("replies") as progress:
        try:
            return ask(requests, generator, cache, progress)
        except KeyboardInterrupt:
            print(f"m3jax: the replies so far are in {cache}; the same command goes on from there",
                  file=sys.stderr)  # fmt: skip
            raise


def _ranks(name: str, sample):
    """The rank of each question's paragraph by the model's dense vectors, texts cut at 512."""
    from m3jax.embed.embedder import M3Embedder
    from m3jax.synthesize.consistency import source_ranks

    model = M3Embedder.from_pretrained(name)
    length = min(512, model.passage_max_length)

    def embed(encode):
        return lambda texts: encode(texts, max_length=length, show_progress=False)["dense_vecs"]

    queries, passages = embed(model.encode_queries), embed(model.encode_corpus)
    return lambda questions, asked: source_ranks(questions, asked, sample, queries, passages)


def _report(options: argparse.Namespace, settings, articles, left_out, counts, replies):
    import dataclasses

    return {
        "generator": options.generator,
        "model": options.model,
        "check_model": options.check_model,
        "check_top_k": options.check_top_k if options.check_model else None,
        "settings": {type(part).__name__: dataclasses.asdict(part) for part in settings},
        "articles": len(articles),
        "left_out": dict(left_out),
        "languages": {lang: dict(count) for lang, count in sorted(counts.items())},
        "tokens": {
            "prompts": sum(reply.prompt_tokens for reply in replies),
            "replies": sum(reply.completion_tokens for reply in replies),
        },
    }


def _print_articles(articles, left_out) -> None:
    from collections import Counter

    languages = Counter(article.lang or "?" for article in articles)
    shown = ", ".join(f"{lang} {count:,}" for lang, count in sorted(languages.items()))
    print(f"{len(articles):,} articles ({shown})")
    for reason, count in left_out.most_common():
        print(f"{count:>12,}  left out: {reason}")


def _print_estimate(options: argparse.Namespace, requests, cache, endpoint, tokenizer) -> None:
    from m3jax.synthesize.synthesis import estimate_tokens

    known = 0
    if endpoint is not None:
        from m3jax.synthesize.endpoint import chat_generator
        from m3jax.synthesize.reply_cache import key_of, read_cache

        identity, replies = chat_generator(endpoint).identity, read_cache(cache)
        left = [r for r in requests if key_of(identity, r.prompt) not in replies]
        known, requests = len(requests) - len(left), left
    prompts, answers = estimate_tokens(requests, tokenizer)
    print(f"{len(requests):,} paragraphs to ask about; {known:,} have a reply in {cache}")
    print(f"about {prompts:,} prompt tokens and {answers:,} tokens of replies")
    if options.price_in is not None or options.price_out is not None:
        cost = (prompts * (options.price_in or 0) + answers * (options.price_out or 0)) / 1e6
        print(f"about {cost:,.4f} at {options.price_in or 0:g} and {options.price_out or 0:g} "
              "a million")  # fmt: skip
    print("a dry run: nothing was asked, nothing written")


def _print_counts(counts, questions) -> None:
    """A line a language, a column a reason."""
    from collections import Counter

    from rich.table import Table

    from m3jax.cli.tables import wide_console

    total = sum(counts.values(), Counter())
    reasons = [r for r, _ in total.most_common() if r not in ("asked", "kept")]
    table = Table("language", "asked", "kept", *reasons)
    rows = [*sorted(counts.items()), ("all", total)] if len(counts) > 1 else counts.items()
    for lang, count in rows:
        cells = (count[name] for name in ("asked", "kept", *reasons))
        table.add_row(lang or "?", *(f"{cell:,}" for cell in cells))
    wide_console().print(table)
    splits = Counter(question.split for question in questions)
    print(", ".join(f"{split} {count:,}" for split, count in splits.most_common()))
