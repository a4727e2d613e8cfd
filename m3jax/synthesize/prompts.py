"""The prompts of language models, in the language of the text. [M3 app. A.2]

They are worded for this project: one specific question that the main point of the paragraph
answers and that is understood without the paragraph. The 13 languages of MLDR have prompts of
their own; other languages use the English one, which names the language.
"""

NONE = "NONE"  # the reply for a paragraph that allows no question

_GENERAL = """\
Below is a passage from a long article. Write one question that a person could type into a search
engine and that the main point of the passage answers.
- Be specific: the passage answers the question by itself, and hardly another text does.
- Call people, places and things by their full names. Use no pronouns such as "he", "it" or "this",
  and do not mention a passage, text, article or author.
- Use words of your own; do not copy whole clauses.
- Write the question in {language}, on one line, and nothing else. If the passage allows no such
  question, write NONE.
"""

# Language -> (instruction, word for "title", word for "passage").
PROMPTS = {
    "ar": (
        """\
فيما يلي مقطع من مقال طويل. اكتب سؤالاً واحداً يمكن أن يكتبه شخص في محرك بحث، وتكون الفكرة الرئيسية
للمقطع جواباً عنه.
- كن محدداً: يكفي المقطع وحده للإجابة عن السؤال، ولا يكاد نص آخر يجيب عنه.
- سمِّ الأشخاص والأماكن والأشياء بأسمائها الكاملة، ولا تستعمل الضمائر وأسماء الإشارة، ولا تذكر كلمات
  مثل "المقطع" أو "النص" أو "المقال" أو "الكاتب".
- استعمل كلماتك أنت ولا تنسخ جملاً كاملة.
- اكتب السؤال بالعربية في سطر واحد دون أي شيء آخر. وإن لم يسمح المقطع بسؤال كهذا فاكتب NONE.
""",
        "العنوان",
        "المقطع",
    ),
    "de": (
        """\
Unten steht ein Abschnitt aus einem langen Artikel. Schreibe eine einzige Frage, die jemand in eine
Suchmaschine eingeben könnte und auf die der Kern des Abschnitts die Antwort gibt.
- Frage nach etwas Bestimmtem: Der Abschnitt allein beantwortet die Frage, kaum ein anderer Text.
- Nenne Personen, Orte und Dinge mit vollem Namen. Verwende keine Pronomen wie „er“, „sie“ oder
  „dies“ und erwähne weder Abschnitt noch Text, Artikel oder Autor.
- Benutze eigene Worte; schreibe keine ganzen Satzteile ab.
- Schreibe die Frage auf Deutsch in eine Zeile und sonst nichts. Lässt der Abschnitt keine solche
  Frage zu, schreibe NONE.
""",
        "Titel",
        "Abschnitt",
    ),
    "en": (_GENERAL.format(language="English"), "Title", "Passage"),
    "es": (
        """\
A continuación hay un pasaje de un artículo largo. Escribe una sola pregunta que alguien podría
teclear en un buscador y a la que responda la idea central del pasaje.
- Pregunta algo concreto: el pasaje basta para responder y casi ningún otro texto lo haría.
- Llama a personas, lugares y cosas por su nombre completo. No uses pronombres como «él», «ella» o
  «esto», ni menciones un pasaje, texto, artículo o autor.
- Usa tus propias palabras; no copies frases enteras.
- Escribe la pregunta en español, en una línea y sin nada más. Si el pasaje no permite una pregunta
  así, escribe NONE.
""",
        "Título",
        "Pasaje",
    ),
    "fr": (
        """\
Voici un passage tiré d'un long article. Écris une seule question que quelqu'un pourrait taper dans
un moteur de recherche et à laquelle l'idée centrale du passage répond.
- Demande quelque chose de précis : le passage suffit pour répondre, et presque aucun autre texte.
- Nomme en entier les personnes, les lieux et les choses. N'emploie pas de pronoms comme « il »,
  « elle » ou « cela », et ne parle ni de passage, ni de texte, d'article ou d'auteur.
- Emploie tes propres mots ; ne recopie pas de phrases.
- Écris la question en français, sur une ligne, et rien d'autre. Si le passage ne permet pas une
  telle question, écris NONE.
""",
        "Titre",
        "Passage",
    ),
    "hi": (
        """\
नीचे एक लंबे लेख का एक अंश है। एक ही ऐसा प्रश्न लिखो जो कोई व्यक्ति खोज इंजन में लिख सकता हो और जिसका
उत्तर इस अंश की मुख्य बात हो।
- प्रश्न विशिष्ट हो: उत्तर के लिए यही अंश पर्याप्त हो और शायद ही कोई दूसरा पाठ उसका उत्तर दे।
- व्यक्तियों, स्थानों और वस्तुओं के पूरे नाम लिखो। "वह", "यह", "उसका" जैसे सर्वनाम न लिखो, और अंश, पाठ,
  लेख या लेखक का उल्लेख न करो।
- अपने शब्दों में लिखो; पूरे वाक्यांश मत उतारो।
- प्रश्न हिन्दी में, एक पंक्ति में लिखो और कुछ नहीं। यदि ऐसा प्रश्न संभव न हो तो NONE लिखो।
""",
        "शीर्षक",
        "अंश",
    ),
    "it": (
        """\
Qui sotto c'è un brano di un lungo articolo. Scrivi una sola domanda che qualcuno potrebbe digitare
in un motore di ricerca e a cui risponde il punto centrale del brano.
- Chiedi qualcosa di preciso: il brano basta a rispondere, e quasi nessun altro testo lo farebbe.
- Chiama persone, luoghi e cose con il nome completo. Non usare pronomi come «lui», «lei» o «questo»
  e non nominare brani, testi, articoli o autori.
- Usa parole tue; non copiare frasi intere.
- Scrivi la domanda in italiano, su una riga, e nient'altro. Se il brano non permette una domanda
  del genere, scrivi NONE.
""",
        "Titolo",
        "Brano",
    ),
    "ja": (
        """\
以下は長い記事の一節です。誰かが検索エンジンに入力しそうな質問で、この一節の要点が答えに
なるものを一つだけ書いてください。
- 具体的に尋ねること。この一節だけで答えられ、ほかの文章ではまず答えられない質問にすること。
- 人名・地名・物の名前は省略せずに書くこと。「彼」「それ」「この」などの指示語は使わず、
  「一節」「文章」「記事」「筆者」にも触れないこと。
- 自分の言葉で書き、文を丸ごと写さないこと。
- 質問だけを日本語で一行で書くこと。そのような質問が作れないときは NONE と書くこと。
""",
        "題名",
        "一節",
    ),
    "ko": (
        """\
아래는 긴 글의 한 대목입니다. 누군가 검색창에 입력할 만하고 이 대목의 핵심이 답이 되는 질문을
하나만 쓰십시오.
- 구체적으로 물으십시오. 이 대목만으로 답할 수 있고 다른 글로는 거의 답할 수 없어야 합니다.
- 사람, 장소, 사물은 이름을 온전히 쓰십시오. "그", "이것" 같은 대명사를 쓰지 말고 글, 본문,
  기사, 글쓴이를 언급하지 마십시오.
- 자기 말로 쓰고 문장을 그대로 옮기지 마십시오.
- 질문만 한국어로 한 줄에 쓰십시오. 그런 질문을 만들 수 없으면 NONE이라고 쓰십시오.
""",
        "제목",
        "대목",
    ),
    "pt": (
        """\
Abaixo está um trecho de um artigo longo. Escreva uma única pergunta que alguém poderia digitar num
buscador e que a ideia central do trecho responde.
- Pergunte algo específico: o trecho basta para responder, e quase nenhum outro texto o faria.
- Chame pessoas, lugares e coisas pelo nome completo. Não use pronomes como "ele", "ela" ou "isto"
  nem mencione trecho, texto, artigo ou autor.
- Use palavras suas; não copie frases inteiras.
- Escreva a pergunta em português, numa linha, e nada mais. Se o trecho não permitir uma pergunta
  assim, escreva NONE.
""",
        "Título",
        "Trecho",
    ),
    "ru": (
        """\
Ниже приведён отрывок из длинной статьи. Напиши один вопрос, который человек мог бы ввести в
поисковик и на который отвечает главная мысль отрывка.
- Спрашивай о конкретном: для ответа достаточно этого отрывка, а другие тексты вряд ли помогут.
- Называй людей, места и предметы полностью. Не используй местоимений вроде «он», «она», «это» и не
  упоминай отрывок, текст, статью или автора.
- Пиши своими словами, не переписывай фразы целиком.
- Напиши вопрос по-русски, в одну строку, и больше ничего. Если такой вопрос невозможен, напиши
  NONE.
""",
        "Заголовок",
        "Отрывок",
    ),
    "th": (
        """\
ข้อความต่อไปนี้เป็นตอนหนึ่งของบทความยาว จงเขียนคำถามหนึ่งข้อที่คนทั่วไปอาจพิมพ์ค้นหา
และมีใจความสำคัญของตอนนี้เป็นคำตอบ
- ถามให้เจาะจง ตอบได้จากตอนนี้เพียงตอนเดียว และแทบจะตอบไม่ได้จากที่อื่น
- เรียกชื่อบุคคล สถานที่ และสิ่งต่าง ๆ ให้ครบ อย่าใช้คำสรรพนามเช่น "เขา" "มัน" "สิ่งนี้"
  และอย่าเอ่ยถึงข้อความ บทความ หรือผู้เขียน
- ใช้ถ้อยคำของตนเอง อย่าคัดลอกมาทั้งประโยค
- เขียนเฉพาะคำถามเป็นภาษาไทยในบรรทัดเดียว ถ้าตั้งคำถามเช่นนั้นไม่ได้ให้เขียน NONE
""",
        "ชื่อเรื่อง",
        "ข้อความ",
    ),
    "zh": (
        """\
下面是一篇长文中的一段。请写出一个人们可能在搜索引擎中输入、而这段话的核心内容正好能回答的问题。
- 问题要具体：单凭这段话就能回答，而别的文章几乎回答不了。
- 人名、地名和事物要写全称，不要用“他”“它”“这”之类的代词，
  也不要提到“本段”“本文”“文章”“作者”。
- 用自己的话来写，不要照抄整句。
- 只用中文写出问题本身，占一行。如果提不出这样的问题，就写 NONE。
""",
        "标题",
        "段落",
    ),
    "zh-Hant": (
        """\
下面是一篇長文中的一段。請寫出一個人們可能在搜尋引擎中輸入、而這段話的核心內容正好能回答的問題。
- 問題要具體：單憑這段話就能回答，而別的文章幾乎回答不了。
- 人名、地名和事物要寫全稱，不要用「他」「它」「這」之類的代詞，
  也不要提到「本段」「本文」「文章」「作者」。
- 用自己的話來寫，不要照抄整句。
- 只用繁體中文寫出問題本身，佔一行。如果提不出這樣的問題，就寫 NONE。
""",
        "標題",
        "段落",
    ),
}

_SAME_LANGUAGE = {"zh-tw": "zh-Hant", "zh-hk": "zh-Hant", "zh-hant": "zh-Hant"}
# Names of languages for the English prompt; other languages appear with their code.
_NAMES = """
af Afrikaans, am Amharic, az Azerbaijani, be Belarusian, bg Bulgarian, bn Bengali, bs Bosnian,
ca Catalan, cs Czech, cy Welsh, da Danish, el Greek, eo Esperanto, et Estonian, eu Basque, fa
Persian, fi Finnish, ga Irish, gl Galician, gu Gujarati, ha Hausa, he Hebrew, hr Croatian, hu
Hungarian, hy Armenian, id Indonesian, is Icelandic, ka Georgian, kk Kazakh, km Khmer, kn
Kannada, ky Kyrgyz, la Latin, lo Lao, lt Lithuanian, lv Latvian, mk Macedonian, ml Malayalam, mn
Mongolian, mr Marathi, ms Malay, my Burmese, ne Nepali, nl Dutch, no Norwegian, or Odia, pa
Punjabi, pl Polish, ps Pashto, ro Romanian, sd Sindhi, si Sinhala, sk Slovak, sl Slovenian, so
Somali, sq Albanian, sr Serbian, sv Swedish, sw Swahili, ta Tamil, te Telugu, tg Tajik, tk
Turkmen, tl Tagalog, tr Turkish, ug Uyghur, uk Ukrainian, ur Urdu, uz Uzbek, vi Vietnamese, yi
Yiddish, yo Yoruba, zu Zulu
"""
NAMES = {code: name for code, name in map(str.split, _NAMES.split(","))}


def prompt(paragraph: str, title: str, language: str) -> str:
    """The prompt for one paragraph: instruction, title (unless it is "") and paragraph."""
    english = _GENERAL.format(language=_name(language)), "Title", "Passage"
    instruction, title_label, passage_label = PROMPTS.get(_base_language(language), english)
    heading = f"{title_label}: {title}\n" if title else ""
    return f"{instruction}\n{heading}{passage_label}:\n{paragraph}\n"


def _base_language(language: str) -> str:
    """The code without region or script, except for traditional Chinese."""
    lower = language.lower().replace("_", "-")
    return _SAME_LANGUAGE.get(lower, lower.split("-")[0])


def _name(language: str) -> str:
    if not language:
        return "the language of the passage"
    return NAMES.get(_base_language(language), f"the language with the code {language!r}")
