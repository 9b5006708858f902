"""A CRDS server on this machine, with the files of a cache."""

import collections
import contextlib
import hashlib
import http.server
import json
import threading
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """Answer the requests of the crds client: server information by JSON-RPC, and files by name."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mappings = [name for name in self.server.files if name.endswith("map")]
        result = {"get_server_info": self.server.info, "get_mapping_names": mappings}.get(request["method"])
        self.answer(json.dumps({"error": None if result else {"message": "unknown method"}, "result": result}).encode())

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        self.server.served[name] += 1
        content = self.server.files[name].read_bytes()
        if name in self.server.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        self.answer(content, 0 if name.endswith("map") else self.server.seconds)

    def answer(self, content, seconds=0):
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        half = len(content) // 2
        self.wfile.write(content[:half])
        time.sleep(seconds)
        self.wfile.write(content[half:])

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def reference_server(cache):
    """A server with the files of a CRDS cache; a reference takes `seconds`, and a `damaged` file has a wrong bit."""
    files = {p.name: p for folder in ("mappings", "references") for p in (cache / folder).rglob("*.*") if p.is_file()}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        address = f"http://127.0.0.1:{running.server_port}"
        running.files, running.served, running.address = files, collections.Counter(), address
        running.seconds, running.damaged = 0, set()
        facts = {
            name: {"size": str(p.stat().st_size), "sha1sum": hashlib.sha1(p.read_bytes()).hexdigest()}
            for name, p in files.items()
        }
        url = {"unchecked": {"roman": f"{address}/files/"}}
        context = "roman_0001.pmap"
        running.info = {
            **{"observatory": "roman", "operational_context": context, "edit_context": context, "default_context": context},
            **{"bad_files": "", "bad_files_list": [], "force_remote_mode": False, "crds_version": {"str": "14.0.3"}},
            **{"reference_url": url, "mapping_url": url, "download_metadata": facts, "last_synced": "2026-01-01 00:00:00"},
        }
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()
