"""Why a passage matches: numbers, picture and page agree with the scores."""

import html.parser
import re

import numpy as np
import pytest
from support.tiny import TEXTS

from m3jax.cli.main import main
from m3jax.explain.alignment import explain_passages
from m3jax.explain.html import explanation_page
from m3jax.explain.plot import MAX_COLUMNS, plot_explanation

QUERY = "the cat sat"
PASSAGES = ["the dog sat on the cat", "القاهرة عاصمة مصر", "<b>the</b> & \"cat\" 'x' [/red] $x_1$"]


@pytest.fixture(scope="module")
def found(tiny):
    return explain_passages(tiny, QUERY, PASSAGES)


@pytest.fixture(scope="module")
def page(found):
    return explanation_page(found, {"dense": 1.0, "sparse": 0.3, "colbert": 1.0})


class Reader(html.parser.HTMLParser):
    """The text and the tags of a page."""

    def __init__(self, page: str):
        super().__init__()
        self.text, self.tags, self.open = "", [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_parts_add_up_to_the_scores(tiny, found):
    scores = tiny.compute_score([(QUERY, passage) for passage in PASSAGES])
    for number, one in enumerate(found):
        for head in ("dense", "sparse", "colbert"):
            assert one.scores[head] == pytest.approx(scores[head][number], abs=1e-5)
        products = sum(match.product for match in one.matches)
        assert products == pytest.approx(scores["sparse"][number], abs=1e-4)
        late = one.similarity.max(axis=1).mean()
        assert late == pytest.approx(scores["colbert"][number], abs=1e-5)
        assert one.similarity.shape == (len(one.query.tokens) - 1, len(one.passage.tokens) - 1)
        total = one.scores["dense"] + 0.3 * one.scores["sparse"] + one.scores["colbert"]
        assert one.scores["all"] == pytest.approx(total, abs=1e-5)


def test_instructions_are_part_of_what_is_explained(tiny_dir):
    from m3jax import M3Embedder

    model = M3Embedder.from_pretrained(tiny_dir, query_instruction="the dog: ", query_max_length=6)
    (one,) = explain_passages(model, QUERY, ["the dog"])
    score = model.compute_score((QUERY, "the dog"))["dense"]
    assert one.scores["dense"] == pytest.approx(score, abs=1e-5)
    assert len(one.query.tokens) == 6 and one.query.text.startswith("the dog: ")


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_can_be_explained(tiny, text):
    (one,) = explain_passages(tiny, text, [text])
    pieces = [tiny.tokenizer.token(int(i)) for i in tiny.tokenizer.encode([text], 128)[0]]
    assert list(one.passage.tokens) == pieces
    Reader(explanation_page([one], {"dense": 1.0, "sparse": 1.0, "colbert": 1.0}))


def test_the_page_shows_every_token_and_every_score(found, page):
    seen = Reader(page)
    assert seen.open == []
    squeezed = "".join(seen.text.split())
    for one in found:
        for view in (one.query, one.passage):
            assert "".join(view.tokens).replace("▁", "") in squeezed
        for value in one.scores.values():
            assert f"{value:.4f}" in seen.text
        for match in one.matches:
            assert f"{match.product:.4f}" in seen.text
    assert seen.text.count("the best match of each query token") == len(PASSAGES)


def test_the_page_escapes_texts_and_loads_nothing(page):
    seen = Reader(page)
    tags = {tag for tag, _ in seen.tags}
    assert not tags & {"b", "script", "link", "img", "iframe", "object"}
    assert PASSAGES[2] in seen.text
    for tag, attributes in seen.tags:
        assert not set(attributes) & {"src", "href", "onclick", "onload"}, tag
    assert not re.search(r"https?:|url\(|@import", page)


def test_the_page_takes_a_texts_own_direction(page):
    lines = [a for tag, a in Reader(page).tags if tag in ("p", "h1", "h2") and "dir" in a]
    # The query's title and line; a heading and two lines a passage.
    assert len(lines) == 2 + 3 * len(PASSAGES)
    assert {a["dir"] for a in lines} == {"auto"}
    # The letter of "<s>" must not count as the line's first.
    ends = [tag for tag, attributes in Reader(page).tags if attributes.get("class") == "end"]
    assert set(ends) == {"bdi"} and len(ends) == 2 * (1 + 2 * len(PASSAGES))


def test_the_deepest_colour_is_the_heaviest_token(found, page):
    line = page.split('<p class="what">lexical</p>')[1].split("</p>")[0]
    tokens = [attributes for tag, attributes in Reader(line).tags if tag in ("span", "bdi")]
    styles = [attributes.get("style", "") for attributes in tokens]
    alphas = np.array([float(style[:-1].split(",")[-1]) if style else 0.0 for style in styles])
    weights = found[0].passage.weights
    assert alphas.argmax() == weights.argmax()
    assert ((alphas > 0) == (weights > 0)).all()


def test_the_picture_shows_every_token_the_maxima_and_the_scores(tiny, found):
    figure = plot_explanation(QUERY, PASSAGES[2], tiny)
    bars, heat = figure.axes[:2]
    one = found[2]
    plain = [piece.replace("▁", "") or "▁" for piece in one.passage.tokens[1:]]
    assert [label.get_text() for label in heat.get_xticklabels()] == plain
    assert not any(label.get_parse_math() for label in heat.get_xticklabels())
    widths = [bar.get_width() for bar in bars.patches]  # pyright: ignore
    np.testing.assert_allclose(widths, [match.product for match in one.matches][: len(widths)])
    marks = np.asarray(heat.collections[0].get_offsets())
    np.testing.assert_array_equal(marks[:, 0], one.best)
    np.testing.assert_allclose(np.asarray(heat.images[0].get_array()), one.similarity, atol=1e-6)
    assert f"multi-vector {one.scores['colbert']:.3f}" in figure.get_suptitle()


def test_of_a_long_passage_the_picture_keeps_the_tokens_that_were_met(tiny, tmp_path):
    figure = plot_explanation(QUERY, " ".join(f"word{i}" for i in range(60)), tiny)
    (one,) = explain_passages(tiny, QUERY, [" ".join(f"word{i}" for i in range(60))])
    assert one.similarity.shape[1] > MAX_COLUMNS
    assert len(figure.axes[1].get_xticklabels()) == len(set(one.best))
    figure.savefig(tmp_path / "long.png")
    assert (tmp_path / "long.png").read_bytes().startswith(b"\x89PNG")


def test_score_writes_the_page_once(tiny_dir, tmp_path, capsys):
    arguments = ["score", "--model", str(tiny_dir), "--query", QUERY, "--html"]
    for passage in PASSAGES:
        arguments[-1:-1] = ["--passage", passage]
    path = tmp_path / "why.html"
    assert main([*arguments, str(path)]) == 0
    out = capsys.readouterr().out
    text = Reader(path.read_text(encoding="utf-8")).text
    table = re.findall(r"-?\d\.\d{4}", out)
    assert len(table) == 4 * len(PASSAGES) and all(number in text for number in table)
    places = [text.index(f"{rank}. ") for rank in (1, 2, 3)]
    assert places == sorted(places)
    assert main([*arguments, str(path)]) == 1
    assert "already exists" in capsys.readouterr().err
