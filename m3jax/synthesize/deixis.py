"""Context references: words with which a question refers to a text that its reader does not see.

The lists are short and hold clear cases only. Pronouns that also occur in self-contained questions
(French "il", English "it") are not included.
"""

import itertools
import re
import unicodedata


def _listed(phrases: str) -> list[str]:
    """The phrases between "|"."""
    return phrases.split("|")


def _combined(first: str, second: str) -> list[str]:
    """Every phrase of the first list followed by every phrase of the second."""
    pairs = itertools.product(_listed(first), _listed(second))
    return [" ".join(pair) for pair in pairs]


# Language -> phrases, in lower case and without punctuation, that match at word boundaries.
PHRASES = {
    "en": [
        *_combined(
            "this|above|following|given|present",
            "article|text|passage|paragraph|document|section|author|study|excerpt|story",
        ),
        *_combined(
            "in the|from the|by the|according to the|does the|of the",
            "article|passage|paragraph|excerpt|above text|given text",
        ),
        *_listed(
            "according to the text|according to the author|mentioned above|he|she|him|his|her|they"
            "|them|their"
        ),
    ],
    "de": [
        *_combined(
            "dieser|diese|dieses|diesem|diesen|der obige|dem obigen|der vorliegende",
            "text|artikel|abschnitt|absatz|textabschnitt|autor|beitrag",
        ),
        *_combined("im|laut|laut dem|in dem", "text|artikel|abschnitt|textabschnitt"),
        *_listed("er|ihm|ihn|der autor des textes|oben genannte|oben genannten"),
    ],
    "es": [
        *_combined(
            "este|el presente|según el|en el", "artículo|texto|pasaje|párrafo|fragmento|documento"
        ),
        *_listed("él|ella|ellos|ellas|mencionado anteriormente"),
    ],
    "fr": [
        *_combined(
            "ce|cet|le présent|selon le|dans le|d après le",
            "article|texte|passage|paragraphe|document|extrait",
        ),
        *_listed(
            "selon l article|dans l article|selon l auteur|celui ci|celle ci|ceux ci|ci dessus"
        ),
    ],
    "hi": _listed(
        "इस लेख|इस अंश|इस पाठ|इस अनुच्छेद|लेख के अनुसार|अंश के अनुसार|उपरोक्त|उसने|उन्होंने|उसका|उसकी|उसके"
    ),
    "it": [
        *_combined("questo|il presente|secondo il|nel", "articolo|testo|brano|paragrafo|documento"),
        *_listed(
            "l articolo|nell articolo|secondo l articolo|secondo l autore|egli|costui|lui|lei"
        ),
    ],
    "pt": [
        *_combined("este|neste|deste|segundo o|no", "artigo|texto|trecho|parágrafo|documento"),
        *_listed("ele|ela|eles|elas|mencionado acima"),
    ],
    "ru": [
        *_combined(
            "этот|этом|этого|данный|данном|приведённый|приведённом",
            "текст|тексте|текста|отрывок|отрывке|отрывка|абзац|абзаце|документ|документе",
        ),
        *_listed(
            "эта статья|этой статье|данной статье|согласно тексту|согласно отрывку|в тексте"
            "|в отрывке|он|она|они|ему"
        ),
    ],
}
# Language -> a regular expression that matches anywhere, for scripts whose words are not separated.
PATTERNS = {
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


def refers_to_context(question: str, language: str) -> bool:
    """Whether the question mentions "this article", or a person only as "him".

    False for languages without a list.
    """
    language = language.split("-")[0].split("_")[0].lower()
    words = _plain(question)
    if pattern := PATTERNS.get(language):
        return re.search(pattern, words) is not None
    return any(f" {phrase} " in words for phrase in PHRASES.get(language, ()))


def _plain(text: str) -> str:
    """Lower case, spaces in place of punctuation, and a space at both ends."""
    letters = (" " if unicodedata.category(c)[0] in "PSZC" else c for c in text.casefold())
    return f" {' '.join(''.join(letters).split())} "
