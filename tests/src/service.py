#!/usr/bin/env python3
"""A small real service. Answers with its version, which lies beside it; says how it is; ends on TERM when what it
has begun is done. `migrate` and `selftest` are its other duties. What is in the file `sick` is its health."""
import http.server, os, pathlib, signal, socketserver, sys, threading

here = pathlib.Path(sys.argv[0]).resolve().parent.parent
version = (here / "VERSION").read_text().strip()
sick = (here / "sick").read_text().strip() if (here / "sick").exists() else ""


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self):
        ill = sick and self.path == "/health"
        body = ((sick if ill else version) + "\n").encode()
        self.send_response(500 if ill else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    disable_nagle_algorithm = True


if "--check" in sys.argv:
    print("can be migrated to", version)
elif "migrate" in sys.argv:
    print("migrated to", version)
    data = pathlib.Path(os.environ["ZED_DATA"])
    (data / "migrated").write_text(version + "\n")
elif "selftest" in sys.argv:
    sys.exit(0 if os.environ.get("DB_PASSWORD", "-") else "there is no password")
else:
    at = sys.argv[sys.argv.index("--listen") + 1] if "--listen" in sys.argv else "127.0.0.1:" + os.environ["PORT"]
    host, port = at.rsplit(":", 1)
    server = Server((host, int(port)), Answer)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("listening on", at, flush=True)
    server.serve_forever(poll_interval=0.05)
