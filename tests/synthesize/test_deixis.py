"""Questions that refer to their text, in each language."""

import pytest
from support.synthesis import MLDR

from m3jax.synthesize.deixis import refers_to_context

REFERRING = {
    "ar": "ماذا يقول هذا المقال عن القاهرة؟",
    "de": "Was sagt dieser Text über Berlin?",
    "en": "According to the passage, what is salt?",
    "es": "¿Qué dice este texto de Lima?",
    "fr": "De quoi parle cet article ?",
    "hi": "इस लेख में दिल्ली के बारे में क्या है?",
    "it": "Di cosa parla questo brano?",
    "ja": "この記事では何が説明されていますか？",
    "ko": "이 글에서 말하는 것은 무엇인가?",
    "pt": "O que diz este texto sobre Lisboa?",
    "ru": "О чём говорится в этом отрывке?",
    "th": "บทความนี้กล่าวถึงอะไร",
    "zh": "本文主要讲了什么？",
    "zh-Hant": "他們在哪一年抵達臺灣？",
}
SELF_CONTAINED = {
    "ar": "ما هو عدد سكان القاهرة؟",
    "de": "Wann wurde die Universität Jena gegründet?",
    "en": "How long does it take light to reach the Moon?",
    "es": "¿Cuándo se fundó Lima?",
    "fr": "Quand Napoléon est-il né ?",
    "hi": "दिल्ली की स्थापना कब हुई?",
    "it": "Chi ha scritto la Divina Commedia?",
    "ja": "その他の惑星より大きい木星の直径は？",
    "ko": "경복궁은 언제 지어졌는가?",
    "pt": "Quem fundou a cidade de São Paulo?",
    "ru": "Когда был основан Петербург?",
    "th": "กรุงเทพมหานครก่อตั้งเมื่อใด",
    "zh": "吉他们手和其它乐器哪个更古老？",
    "zh-Hant": "臺北的其他名稱是什麼？",
}


@pytest.mark.parametrize("lang", [*MLDR, "zh-Hant"])
def test_references_to_the_context_are_detected(lang):
    assert refers_to_context(REFERRING[lang], lang)
    assert not refers_to_context(SELF_CONTAINED[lang], lang)
