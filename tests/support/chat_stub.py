"""A chat endpoint on this machine that answers as a test says, in OpenAI's protocol."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub:
    """A chat endpoint on this machine: `script` answers each request, in turn."""

    def __init__(self):
        self.prompts: list[str] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict] = []
        self.script = lambda number, prompt: (200, {}, completion(question_for(prompt)))
        stub, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    number = len(stub.prompts)
                    stub.prompts.append(body["messages"][0]["content"])
                    stub.times.append(time.monotonic())
                    stub.headers.append(dict(self.headers))
                    stub.bodies.append(body)
                status, headers, content = stub.script(number, stub.prompts[number])
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:  # the client gave up
                    pass

            def log_message(self, format, *args):
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                pass  # the client gave up

        self.server = Server(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def town(text: str) -> str:
    """The first invented town in a text."""
    found = re.search(r"Town\w+", text)
    assert found, text
    return found[0]


def question_for(text: str) -> str:
    return f"In which year did weavers establish a marketplace at {town(text)}?"


def completion(text: str | None, **choice) -> bytes:
    values = {
        "choices": [{"message": {"content": text}, "finish_reason": "stop"} | choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10},
    }
    return json.dumps(values).encode()
