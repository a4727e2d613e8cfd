"""Articles in a file and a stub of a chat endpoint."""

import json

import pytest
from support.chat_stub import Stub
from support.synthesis import article_text


@pytest.fixture
def articles_file(tmp_path):
    path = tmp_path / "articles.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for number in range(12):
            record = {
                "id": f"a{number}",
                "title": f"Chronicle {number}",
                "lang": "en",
                "text": article_text(number),
            }
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def stub():
    server = Stub()
    yield server
    server.close()
