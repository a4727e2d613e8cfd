"""Generate questions for long articles with a language model, as the paper does for MLDR.

Reads {"text", "title"?, "id"?, "lang"?} (the positives of training examples), draws articles and
paragraphs by seed, requests one question per paragraph, filters the questions, and pairs each with
its complete article: OUTPUT/train.jsonl.gz, with --shares also dev.jsonl.gz and test.jsonl.gz, and
report.json. Replies are stored in OUTPUT.replies.jsonl as they arrive: after an interruption the
same command continues and sends no request twice.

Generators: chat (an endpoint with OpenAI's protocol; the key is read from an environment variable
and never stored), local (a directory with a causal language model), extractive (keywords of the
paragraph: no model, no network).
"""

import argparse
import sys
from typing import Any

from m3jax.cli.options import add_flags, deprecated_alias

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
    add("--model", metavar="NAME|DIR", help="the name (chat) or the directory (local) of the model")
    add("--tag", default="synthetic", help="source of the examples (default: %(default)s)")
    add("--cache", metavar="FILE", help="stored replies (default: OUTPUT.replies.jsonl)")
    add("--seed", type=int, default=0)
    add_flags(parser, "--skip-bad")
    add("--dry-run", action="store_true", help="count and estimate only: no request, no output")
    add("--price-in", type=float, metavar="P", help="per million prompt tokens, for --dry-run")
    add("--price-out", type=float, metavar="P", help="per million tokens of replies")
    _add_articles(parser.add_argument_group("articles"))
    _add_generators(parser.add_argument_group("generators"))
    _add_filters(parser.add_argument_group("filters"))
    deprecated_alias(parser, "--source", "--tag")
    deprecated_alias(parser, "--lang", "--language")
    deprecated_alias(parser, "--parallel", "--concurrency")


def _add_articles(group: Any) -> None:
    add = group.add_argument
    add_flags(group, "--tokenizer")
    add("--min-chars", type=int, default=2000, metavar="N", help="default: %(default)s")
    add("--max-chars", type=int, metavar="N", help="default: no limit")
    add("--min-tokens", type=int, default=0, metavar="N", help="with --tokenizer")
    add("--max-tokens", type=int, metavar="N", help="with --tokenizer")
    add("--languages", nargs="+", default=[], metavar="LANG", help="use only these (default: all)")
    add("--language", default="", help="of records without lang")
    add("--articles", type=int, metavar="N", help="draw at most N per language (default: all)")
    add("--paragraphs", type=int, default=1, metavar="N", help="per article (default: 1)")
    add(
        "--paragraph-size",
        type=int,
        nargs=2,
        default=[300, 2000],
        metavar=("MIN", "MAX"),
        help="characters; Chinese, Japanese and Korean ones count 3 (default: 300 2000)",
    )
    add(
        "--shares",
        default="1,0,0",
        metavar="TRAIN,DEV,TEST",
        help="of articles, by a hash of the text (default: 1,0,0)",
    )
    add("--beir", action="store_true", help="also write dev and test as tasks, OUTPUT/beir/LANG")


def _add_generators(group: Any) -> None:
    add = group.add_argument
    add("--base-url", metavar="URL", help="default: OPENAI_BASE_URL")
    add("--key-env", default="OPENAI_API_KEY", metavar="VARIABLE", help="default: %(default)s")
    add("--no-key", action="store_true", help="send no key")
    add("--concurrency", type=int, default=4, metavar="N", help="requests at a time (default: 4)")
    add("--timeout", type=float, default=60.0, metavar="S", help="default: %(default)s")
    add(
        "--retries",
        type=int,
        default=6,
        metavar="N",
        help="after temporary failures, with growing waits (default: %(default)s)",
    )
    add(
        "--max-wait",
        type=float,
        default=60.0,
        metavar="S",
        help="longest wait, also if Retry-After is longer (default: %(default)s)",
    )
    add("--temperature", type=float, default=0.0, help="default: %(default)s")
    add(
        "--answer-tokens",
        type=int,
        default=200,
        metavar="N",
        help="maximum tokens of a reply (default: %(default)s)",
    )
    add("--body", default="{}", metavar="JSON", help="more fields of the request; null removes one")
    add("--batch-size", type=int, default=8, metavar="N", help="prompts per batch, for local")


def _add_filters(group: Any) -> None:
    add = group.add_argument
    add("--shortest", type=int, default=15, metavar="N", help="size of a question (default: 15)")
    add("--longest", type=int, default=300, metavar="N", help="default: %(default)s")
    add(
        "--script",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="least share of letters in the language's script; 0: off (default: 0.5)",
    )
    add(
        "--max-title",
        type=float,
        default=0.7,
        metavar="SHARE",
        help="largest share of a question that occurs in the title; 1: off (default: %(default)s)",
    )
    add(
        "--max-copied",
        type=float,
        default=0.7,
        metavar="SHARE",
        help="largest share of a question in one run of its paragraph; 1: off (default: 0.7)",
    )
    add(
        "--check-model",
        metavar="MODEL",
        help="drop questions whose paragraph this model does not retrieve",
    )
    add("--check-top-k", type=int, default=3, metavar="K", help="default: %(default)s")


def run(options: argparse.Namespace) -> int:
    """Draws paragraphs, generates and filters questions, and writes them; or estimates."""
    from m3jax.cli.options import load_tokenizer
    from m3jax.cli.tables import counting
    from m3jax.synthesize.synthesis import check_paths, draw_paragraphs, synthesize_questions

    synthesis = _synthesis_options(options)
    cache = check_paths(options.output, options.cache)
    endpoint = _endpoint(options) if options.generator == "chat" else None
    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
    with counting("articles read") as progress:
        sample = draw_paragraphs(options.input, synthesis, tokenizer, progress)
    if options.dry_run:
        _print_articles(sample)
        _print_estimate(options, sample.requests(), cache, endpoint, tokenizer)
        return 0
    generator = _generator(options, endpoint, sample)
    round_trip = _round_trip(options) if options.check_model else None
    with counting("replies") as progress:
        try:
            result = synthesize_questions(
                sample,
                options.output,
                generator,
                cache=cache,
                round_trip=round_trip,
                progress=progress,
            )
        except KeyboardInterrupt:
            print(
                f"m3jax: the replies so far are in {cache}; the same command continues from there",
                file=sys.stderr,
            )
            raise
    _print_articles(sample)
    _print_counts(result)
    return 0


def _synthesis_options(options: argparse.Namespace):
    """The options of the synthesis; raises every error in them before a file is read."""
    from m3jax.synthesize.articles import ArticleSampling
    from m3jax.synthesize.questions import QuestionLimits
    from m3jax.synthesize.synthesis import SynthesisOptions, SynthesisPlan

    try:
        train, dev, test = map(float, options.shares.split(","))
    except ValueError:
        raise ValueError(f"--shares needs three numbers, got {options.shares!r}") from None
    if options.check_top_k < 1:
        raise ValueError(f"--check-top-k must be at least 1, got {options.check_top_k}")
    shortest, longest = options.paragraph_size
    sampling = ArticleSampling(
        min_chars=options.min_chars,
        max_chars=options.max_chars,
        min_tokens=options.min_tokens,
        max_tokens=options.max_tokens,
        languages=tuple(options.languages),
        per_language=options.articles,
        seed=options.seed,
    )
    plan = SynthesisPlan(
        per_article=options.paragraphs,
        shortest=shortest,
        longest=longest,
        shares=(train, dev, test),
        source=options.tag,
        beir=options.beir,
        seed=options.seed,
    )
    limits = QuestionLimits(
        shortest=options.shortest,
        longest=options.longest,
        script=options.script,
        title=options.max_title,
        copied=options.max_copied,
    )
    return SynthesisOptions(
        sampling=sampling,
        plan=plan,
        limits=limits,
        language=options.language,
        skip_bad=options.skip_bad,
    )


def _endpoint(options: argparse.Namespace):
    import json
    import os

    from m3jax.synthesize.endpoint import Endpoint, is_local

    url = options.base_url or os.environ.get("OPENAI_BASE_URL", "")
    if options.dry_run:  # sends no request
        url = url or "http://localhost"
    if not url:
        raise ValueError("no endpoint: pass --base-url URL or set OPENAI_BASE_URL")
    try:
        body = json.loads(options.body)
    except ValueError as error:
        raise ValueError(f"--body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise ValueError(f"--body must be a JSON object, got {options.body}")
    key = "" if options.no_key else os.environ.get(options.key_env, "").strip()
    endpoint = Endpoint(
        base_url=url,
        model=options.model or "",
        key=key,
        temperature=options.temperature,
        max_tokens=options.answer_tokens,
        body=body,
        concurrency=options.concurrency,
        timeout=options.timeout,
        retries=options.retries,
        max_wait=options.max_wait,
    )
    if not (key or options.no_key or options.dry_run or is_local(url)):
        raise ValueError(
            f"{options.key_env} is not set: set it to the key, name another variable with "
            "--key-env, or pass --no-key"
        )
    return endpoint


def _generator(options: argparse.Namespace, endpoint, sample):
    if endpoint is not None:
        from m3jax.synthesize.endpoint import chat_generator

        return chat_generator(endpoint)
    if options.generator == "local":
        from m3jax.synthesize.local import local_generator

        if not options.model:
            raise ValueError("--generator local needs --model DIR")
        return local_generator(
            options.model,
            temperature=options.temperature,
            max_tokens=options.answer_tokens,
            batch_size=options.batch_size,
        )._replace(model=options.model)
    from m3jax.synthesize.extractive import extractive_generator

    paragraphs = {source.article.id: source.paragraphs for source in sample.paragraphs}
    generator = extractive_generator(text for texts in paragraphs.values() for text in texts)
    return generator._replace(model=options.model)


def _round_trip(options: argparse.Namespace):
    from m3jax.embed.embedder import M3Embedder
    from m3jax.synthesize.consistency import round_trip_filter

    embedder = M3Embedder.from_pretrained(options.check_model)
    return round_trip_filter(embedder, options.check_top_k, options.check_model)


def _print_articles(sample) -> None:
    from collections import Counter

    languages = Counter(article.lang or "?" for article in sample.articles)
    shown = ", ".join(f"{lang} {count:,}" for lang, count in sorted(languages.items()))
    print(f"{len(sample.articles):,} articles ({shown})")
    for reason, count in sample.excluded.most_common():
        print(f"{count:>12,}  left out: {reason}")


def _print_estimate(options: argparse.Namespace, requests, cache, endpoint, tokenizer) -> None:
    from m3jax.synthesize.synthesis import estimate_tokens

    total = len(requests)
    if endpoint is not None:
        from m3jax.synthesize.endpoint import chat_generator
        from m3jax.synthesize.reply_cache import uncached

        requests = uncached(requests, chat_generator(endpoint), cache)
    prompts, answers = estimate_tokens(requests, tokenizer)
    cached = total - len(requests)
    print(f"{len(requests):,} paragraphs to ask about; {cached:,} have a reply in {cache}")
    print(f"about {prompts:,} prompt tokens and {answers:,} tokens of replies")
    if options.price_in is not None or options.price_out is not None:
        price_in, price_out = options.price_in or 0, options.price_out or 0
        cost = (prompts * price_in + answers * price_out) / 1e6
        print(f"about {cost:,.4f} at {price_in:g} and {price_out:g} per million")
    print("dry run: no request was sent, no file written")


def _print_counts(result) -> None:
    """A table with a row per language and a column per outcome."""
    from collections import Counter

    from rich.table import Table

    from m3jax.cli.tables import wide_console

    total = sum(result.counts.values(), Counter())
    reasons = [r for r, _ in total.most_common() if r not in ("asked", "kept")]
    table = Table("language", "asked", "kept", *reasons)
    rows = sorted(result.counts.items())
    if len(rows) > 1:
        rows.append(("all", total))
    for lang, count in rows:
        cells = (count[name] for name in ("asked", "kept", *reasons))
        table.add_row(lang or "?", *(f"{cell:,}" for cell in cells))
    wide_console().print(table)
    splits = Counter(question.split for question in result.questions)
    print(", ".join(f"{split} {count:,}" for split, count in splits.most_common()))
