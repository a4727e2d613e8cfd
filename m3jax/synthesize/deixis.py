"""Words by which a question leans on a text that its reader does not see. Never imports JAX.

Short lists of what is plain: pronouns that also stand in sound questions (French "il", English
"it") are not in them.
"""

import itertools
import re
import unicodedata


def _each(first: str, second: str) -> list[str]:
    """Every word of the first list before every one of the second; | between phrases."""
    pairs = itertools.product(first.split("|"), second.split("|"))
    return [" ".join(pair) for pair in pairs]


# Whole words, in small letters, without punctuation.
WORDS = {
    "en": [
        *_each("this|above|following|given|present", "article|text|passage|paragraph|document"
               "|section|author|study|excerpt|story"),
        *_each("in the|from the|by the|according to the|does the|of the",
               "article|passage|paragraph|excerpt|above text|given text"),
        *"according to the text|according to the author|mentioned above|he|she|him|his|her|they"
        "|them|their".split("|"),
    ],
    "de": [
        *_each("dieser|diese|dieses|diesem|diesen|der obige|dem obigen|der vorliegende",
               "text|artikel|abschnitt|absatz|textabschnitt|autor|beitrag"),
        *_each("im|laut|laut dem|in dem", "text|artikel|abschnitt|textabschnitt"),
        *"er|ihm|ihn|der autor des textes|oben genannte|oben genannten".split("|"),
    ],
    "es": [
        *_each("este|el presente|según el|en el",
               "artículo|texto|pasaje|párrafo|fragmento|documento"),
        *"él|ella|ellos|ellas|mencionado anteriormente".split("|"),
    ],
    "fr": [
        *_each("ce|cet|le présent|selon le|dans le|d après le",
               "article|texte|passage|paragraphe|document|extrait"),
        *"selon l article|dans l article|selon l auteur|celui ci|celle ci|ceux ci|ci dessus"
        .split("|"),
    ],
    "hi": (
        "इस लेख|इस अंश|इस पाठ|इस अनुच्छेद|लेख के अनुसार|अंश के अनुसार|उपरोक्त|उसने|उन्होंने|उसका|उसकी|उसके"
    ).split("|"),
    "it": [
        *_each("questo|il presente|secondo il|nel", "articolo|testo|brano|paragrafo|documento"),
        *"l articolo|nell articolo|secondo l articolo|secondo l autore|egli|costui|lui|lei"
        .split("|"),
    ],
    "pt": [
        *_each("este|neste|deste|segundo o|no", "artigo|texto|trecho|parágrafo|documento"),
        *"ele|ela|eles|elas|mencionado acima".split("|"),
    ],
    "ru": [
        *_each("этот|этом|этого|данный|данном|приведённый|приведённом",
               "текст|тексте|текста|отрывок|отрывке|отрывка|абзац|абзаце|документ|документе"),
        *"эта статья|этой статье|данной статье|согласно тексту|согласно отрывку|в тексте|в отрывке"
        "|он|она|они|ему".split("|"),
    ],
}  # fmt: skip
# Any place in a question, for words that grow together with their neighbours; expressions.
PARTS = {
    "ar": "هذا المقال|هذه المقالة|هذا النص|هذا المقطع|هذه الفقرة|في النص|في المقال|المذكور أعلاه|"
    "وفقا للنص|وفقًا للنص",
    "ja": "この記事|この文章|この一節|この段落|この文書|本文|本記事|上記|上述|筆者|彼女|彼は|"
    "彼が|彼の|それは",
    "ko": " 이 글| 본문| 이 문서| 이 기사| 이 대목| 이 단락| 위 글| 위의 글| 해당 글|글쓴이|"
    " 그녀| 그는 ",
    "th": "บทความนี้|ข้อความนี้|เนื้อหานี้|ย่อหน้านี้|ตอนนี้กล่าว|ผู้เขียนบทความ|ข้างต้น",
    "zh": "本文|这篇文章|這篇文章|该文章|該文章|这段|這段|本段|上述|文中|作者认为|作者認為|"
    "(?<![其吉])他[们們]|她|(?<!其)它",
}


def leans_on_text(question: str, language: str) -> bool:
    """Does it speak of "this article", or of "him" whom nobody named? False for other languages."""
    language = language.split("-")[0].split("_")[0].lower()
    words = _plain(question)
    if part := PARTS.get(language):
        return re.search(part, words) is not None
    return any(f" {phrase} " in words for phrase in WORDS.get(language, ()))


def _plain(text: str) -> str:
    """Small letters, signs for spaces, a space at either end."""
    letters = (" " if unicodedata.category(c)[0] in "PSZC" else c for c in text.casefold())
    return f" {' '.join(''.join(letters).split())} "
