"""Selects the small multilingual sample corpus that ships in the package for `m3jax quickstart`.

    python experiments/make_sample_corpus.py --data DATA

DATA holds train/*.jsonl.gz. Passages are not truncated; they are chosen in the order of a seeded
hash. Takes seconds.
"""

import argparse
import gzip
import hashlib
import json
import re
from collections import Counter
from pathlib import Path

SEED = "m3jax sample 2"
CHARS, BYTES, ASKS = range(120, 701), 1300, range(36, 181)  # ASKS: a question's UTF-8 bytes
SAME, SHARED = 0.15, 0.7  # two passages' 5-grams (Jaccard); a question's 3-grams in its passage
QUESTION = re.compile(r"([?？؟]|か。)$")
GRIM = r"(?i:hitler|nazi|terror|murder|killed|\bsex|mord|asesin|giết|bunuh)|ヒトラー|[杀殺]"
NOISE = GRIM + r"|http|Ctrl|[][{}<>|=~^\t\xad]|[(（]\s?[;,)，；）]|\s[.,，。;]|[,。:][,。]|^\W"
PROSE = re.compile(r"([.!?。！？؟…]|:(?=\n))[\"'”’»」』)）]?(?=\n|$)")  # how a line of prose ends
PICKS = """help_fr 4 2, help_ko 12 2, help_ru 12 2, qa_en_squadshifts-wiki 14 3, qa_de_mlqa 12 2,
qa_es_mlqa 12 2, qa_vi_mlqa 14 2, qa_zh_mlqa 12 2, qa_zh-Hant_drcd 12 2, qa_ja_jaquad 16 2,
qa_fa_pquad 15 2, qa_he_heq 15 2, qa_id_idkmrc 15 2, qa_kk_kazqad 15 2, qa_pt_faquad 15 2,
xqa_fon-fr_afriqa 10 0, xqa_swa-en_afriqa 3 2, xqa_yor-en_afriqa 3 1, xqa_zul-en_afriqa 2 1,
xqa_ar-de_mlqa 3 1, xqa_hi-de_mlqa 3 1, xqa_ar-es_mlqa 3 1, xqa_hi-es_mlqa 3 1, xqa_zh-es_mlqa 3 1,
xqa_ar-zh_mlqa 3 1, xqa_de-zh_mlqa 3 1, xqa_es-vi_mlqa 3 1"""  # file, passages, questions
SOURCES = """afriqa | AfriQA, Wikipedia | masakhane-io/afriqa@5c29933 | CC-BY-4.0
drcd | DRCD, Wikipedia | DRCKnowledgeTeam/DRCD@b944790 | CC-BY-SA-3.0
faquad | FaQuAD, Brazilian higher education and Wikipedia | liafacom/faquad@6ad978f | CC-BY-4.0
gnomehelp | GNOME user help 43.0, its titles as questions | GNOME/gnome-user-docs | CC-BY-SA-3.0
heq | HeQ, Wikipedia and Geektime | NNLP-IL/Hebrew-Question-Answering-Dataset@f46d2ff | CC-BY-4.0
idkmrc | IDK-MRC (from TyDi QA), Wikipedia | rifkiaputri/IDK-MRC@e79b427 | CC-BY-SA-4.0
jaquad | JaQuAD, Wikipedia | SkelterLabsInc/JaQuAD@23f5d72 | CC-BY-SA-3.0
kazqad | KazQAD, Wikipedia | IS2AI/KazQAD@ab8684a | CC-BY-SA-4.0
mlqa | MLQA, Wikipedia | facebookresearch/MLQA | CC-BY-SA-3.0
pquad | PQuAD, Wikipedia | AUT-NLP/PQuAD@b172410 | CC-BY-SA-4.0
squadshifts-wiki | SQuADShifts, Wikipedia | modestyachts/squadshifts-website@b7cc4d5 | CC-BY-4.0"""
ROWS = {row.split(" | ")[0]: row for row in SOURCES.split("\n")}
NOTICE = """# Sources of the sample corpus

`experiments/make_sample_corpus.py` writes this folder. Texts are unchanged except for selection:
each stands as in the data set that `source` names (help pages: the page's text without markup) and
under its licence (https://creativecommons.org/licenses/), not under the licence of m3jax's code.
CC BY-SA is share-alike: pass on adapted versions of these sample files under the same licence and
with this attribution. Text from Wikipedia is by its contributors, CC BY-SA.

| source | what | origin (github.com) | licence | passages |
|---|---|---|---|---|
"""


def grams(text: str, size: int) -> set[str]:
    """The character n-grams of a text."""
    return {text[i : i + size].lower() for i in range(len(text) - size + 1)}


def read(path: Path) -> list[dict]:
    """A file's usable passages in hash order, those with usable questions first."""
    entries: dict[str, dict] = {}
    for row in map(json.loads, gzip.open(path, "rt", encoding="utf-8")):
        text, query = row["pos"][0], row["query"]
        fits = len(text) in CHARS and len(text.encode()) <= BYTES and not re.search(NOISE, text)
        if row["source"] in ROWS and fits and all(map(PROSE.search, text.splitlines(True))):
            key = row["id"][:-1] if row["source"] == "gnomehelp" else text  # one page, any language
            entry = entries.setdefault(key, row | {"key": key, "text": text, "asks": []})
            name = set(re.findall(r"[A-Za-z]\w{2,}", query)) & set(re.findall(r"\w+", text))
            good = len(query.encode()) in ASKS and QUESTION.search(query)
            entry["asks"] += [query] if good and (name or "pos_lang" not in row) else []
    digest = {key: hashlib.sha256(f"{SEED} {key}".encode()).hexdigest() for key in entries}
    return sorted(entries.values(), key=lambda entry: (not entry["asks"], digest[entry["key"]]))


def pick(entries: list[dict], count: int, taken: dict[str, set[str]]) -> list[dict]:
    """The first passages that are no near-duplicates of one in `taken`; adds them to it."""
    chosen = []
    for entry in [entry for entry in entries if entry["key"] not in taken]:
        new = grams(entry["text"], 5)
        if len(chosen) < count and all(len(new & o) < SAME * len(new | o) for o in taken.values()):
            chosen.append(entry)
            taken[entry["key"]] = new
    return chosen


def ask(entry: dict) -> tuple[bool, str]:
    """Whether a passage's questions are too general, and its most specific question."""
    shared = {q: len(grams(q, 3) & grams(entry["text"], 3)) / len(q) for q in entry["asks"]}
    best = max(shared, key=lambda query: (min(shared[query], SHARED), len(query)))
    return shared[best] < SHARED, best


def main() -> None:
    """Writes corpus.jsonl, queries.jsonl and ATTRIBUTION.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the directory that holds train/")
    parser.add_argument("--output", type=Path, default=Path("m3jax/assets/sample"))
    args = parser.parse_args()
    corpus, queries, counts, taken = [], [], Counter(), {}
    for name, passages, questions in map(str.split, PICKS.split(",")):
        chosen = pick(read(args.data / "train" / f"{name}.jsonl.gz"), int(passages), taken)
        for entry in chosen:
            lang, source = entry.get("pos_lang", entry["lang"]), entry["source"]
            counts.update([lang, source])
            entry["_id"] = f"{lang}-{counts[lang]:02d}"
            corpus.append(dict(_id=entry["_id"], text=entry["text"], lang=lang, source=source))
        asked = sorted((entry for entry in chosen if entry["asks"]), key=lambda one: ask(one)[0])
        for entry in asked[: int(questions)]:
            row = {"_id": f"q{len(queries) + 1:02d}", "text": ask(entry)[1], "lang": entry["lang"]}
            queries.append(row | {"positive": entry["_id"]})
    table = "".join(f"| {row} | {counts[source]} |\n" for source, row in ROWS.items())
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "ATTRIBUTION.md").write_bytes((NOTICE + table).encode())
    for file, rows in (("corpus", corpus), ("queries", queries)):
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (args.output / f"{file}.jsonl").write_bytes("".join(lines).encode())


if __name__ == "__main__":
    main()
