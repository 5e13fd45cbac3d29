"""Stands between an agent and its manager: writes down what the agent says, and answers badly when told to."""

import http.client
import http.server
import json
import threading
import urllib.parse

TOTALS = ("calls_started", "calls", "execution_ns", "hot_ns")


class ManagerProxy:
    """A fault is what requests get instead of the manager's answer: an HTTP status, or "garbage", "other", "half",
    "closed". With `lose_answers` the manager hears them all the same."""

    def __init__(self, manager_url):
        self.manager = urllib.parse.urlparse(manager_url).netloc
        self.fault = None
        self.fault_path = ""  # Only requests whose path has this in it.
        self.lose_answers = False
        self.resend = False
        self.heartbeats = []  # (what was said, whether an answer went back)
        self.requests = []  # (method, path)
        self.backwards = []
        self.lock = threading.Lock()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer_all(self):
                proxy.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = answer_all

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def handle(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.fault if self.fault_path in request.path else None
        beat = json.loads(body) if request.path.endswith("/heartbeat") else None
        with self.lock:
            self.requests.append((request.command, request.path))
            if beat is not None:
                self.note(beat, fault is None)
        try:
            if fault is None or self.lose_answers:
                status, headers, answer = self.ask_manager(request, body)
            if fault is not None:
                return self.misbehave(request, fault)
            if beat is not None and status == 200:
                said = json.loads(answer)
                answer = json.dumps(dict(said, resend=said["resend"] or self.resend)).encode()
            request.send_response(status)
            for name, value in headers:
                if name.lower() in ("content-type", "sublet-digest"):
                    request.send_header(name, value)
            request.send_header("Content-Length", str(len(answer)))
            request.end_headers()
            request.wfile.write(answer)
        except OSError:
            request.close_connection = True
        return None

    def note(self, beat, answered):
        before = self.totals()
        self.heartbeats.append((beat, answered))
        for usage in beat["usage"]:
            known = before.get(usage["id"])
            if known and any(usage[name] < known[name] for name in TOTALS):
                self.backwards.append((known, usage))

    def ask_manager(self, request, body):
        connection = http.client.HTTPConnection(self.manager, timeout=40)
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(request.command, request.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def misbehave(self, request, fault):
        if isinstance(fault, int):
            text = json.dumps({"error": "not_found" if fault == 404 else "unavailable", "message": "as the test wants",
                               "retry_after_ms": 0}).encode()
            request.send_response(fault)
            request.send_header("Content-Length", str(len(text)))
            request.end_headers()
            request.wfile.write(text)
            return
        request.close_connection = True
        if fault == "closed":
            return
        text = {"garbage": b"\xff\x00{]", "other": b'{"node": "seven", "surprise": []}', "half": b'{"time_ms": 1'}[fault]
        request.send_response(200)
        request.send_header("Content-Length", str(len(text) + (1000 if fault == "half" else 0)))
        request.end_headers()
        request.wfile.write(text)

    def totals(self):
        """What the agent has said last of each worker."""
        return {usage["id"]: usage for beat, _ in self.heartbeats for usage in beat["usage"]}

    def books(self):
        """The sums over all workers: started, returned."""
        with self.lock:
            totals = self.totals().values()
        return sum(usage["calls_started"] for usage in totals), sum(usage["calls"] for usage in totals)

    def said(self):
        with self.lock:
            return [beat for beat, _ in self.heartbeats]
