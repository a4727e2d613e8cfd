"""Prompts in the language of the text."""

from support.synthesis import MLDR

from m3jax.data.cleaning import wrong_script
from m3jax.synthesize.prompts import PROMPTS, prompt


def test_prompts_speak_the_language_of_the_text():
    for lang in MLDR:
        text = prompt("PARAGRAPH {x}", "TITLE", lang)
        assert "PARAGRAPH {x}" in text and "TITLE" in text and "NONE" in text
        assert lang in ("en", "it") or text.splitlines()[0] != PROMPTS["en"][0].splitlines()[0]
        first = text.split("PARAGRAPH")[0].replace("NONE", "").replace("TITLE", "")
        assert not wrong_script(first, lang, 0.9)
    assert prompt("p", "", "pt-BR") == prompt("p", "", "pt")
    assert prompt("p", "", "zh-TW") == prompt("p", "", "zh-Hant") != prompt("p", "", "zh-CN")
    assert "Write the question in Swahili," in prompt("p", "", "sw")
    assert "in the language of the passage," in prompt("p", "", "")
