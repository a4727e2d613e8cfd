"""Questions from the words of a paragraph that others lack."""

from support.chat_stub import town
from support.synthesis import article_text

from m3jax.synthesize.articles import (
    split_paragraphs,
)
from m3jax.synthesize.extractive import extractive_generator
from m3jax.synthesize.generators import Request


def test_keywords_are_words_that_other_paragraphs_lack():
    texts = [p for number in range(3) for p in split_paragraphs(article_text(number), 300, 2000)]
    made = extractive_generator(texts)
    wanted = texts[4]
    (reply,) = made.answer([Request("", wanted, "en")])
    assert reply.text and town(wanted) in reply.text.split()
    assert extractive_generator(texts).identity == made.identity
    assert extractive_generator(texts[1:]).identity != made.identity
    assert made.answer([Request("", "1 2 3 4", "en")])[0].text == "NONE"
