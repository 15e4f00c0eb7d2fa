#!/usr/bin/env -S python3 -I -S
"""A small real service. Answers with its version, which lies beside it; says how it is; ends on TERM. `migrate` and
`selftest` are its other duties. What is in the file `sick` is its health. Starts fast: tests start it often."""
import os, signal, socket, sys, threading

here = os.path.dirname(os.path.dirname(os.path.realpath(sys.argv[0])))
version = open(os.path.join(here, "VERSION")).read().strip()
sick = os.path.join(here, "sick")
sick = open(sick).read().strip() if os.path.exists(sick) else ""


def answer(connection):
    lines, keeps = connection.makefile("rb"), True
    while keeps and (request := lines.readline()):
        while header := lines.readline().strip().lower():
            keeps = keeps and header != b"connection: close"
        ill = sick and request.split()[1] == b"/health"
        body = (sick if ill else version) + "\n"
        status = "500 Sick" if ill else "200 OK"
        connection.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    lines.close()
    connection.close()


if "--check" in sys.argv:
    print("can be migrated to", version)
elif "migrate" in sys.argv:
    print("migrated to", version)
    with open(os.path.join(os.environ["ZED_DATA"], "migrated"), "w") as record:
        record.write(version + "\n")
elif "selftest" in sys.argv:
    sys.exit(0 if os.environ.get("DB_PASSWORD", "-") else "there is no password")
else:
    at = sys.argv[sys.argv.index("--listen") + 1] if "--listen" in sys.argv else "127.0.0.1:" + os.environ["PORT"]
    host, port = at.rsplit(":", 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    listener = socket.create_server((host, int(port)), backlog=128)
    print("listening on", at, flush=True)
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=answer, args=(connection,), daemon=True).start()
