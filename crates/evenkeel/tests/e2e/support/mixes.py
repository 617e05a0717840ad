# The scenarios of `http2_mixes.rs`, run by a client of HTTP/1.1 (Python's h11) or HTTP/2 (h2). Follows `h2client.py`.
# Third argument: the client's protocol, `1` or `2`. Prints a line for each scenario: its name, and what came.
import h11


class Http1:
    "The same as `Http2`, for one request on a connection."

    def __init__(self):
        self.sock = socket.create_connection((host, int(port)), 60)
        self.sock.settimeout(60)
        self.conn = h11.Connection(h11.CLIENT)

    def send(self, event):
        self.sock.sendall(self.conn.send(event))

    def next(self):
        while True:
            event = self.conn.next_event()
            if event is not h11.NEED_DATA:
                return event
            self.conn.receive_data(self.sock.recv(65536))


def text(pairs):
    return [[bytes(n).decode() if not isinstance(n, str) else n, bytes(v).decode() if not isinstance(v, str) else v] for n, v in pairs]


def over_http1(method, path, fields, body, trailers, expects):
    link = Http1()
    head = [("host", "shop.test"), ("te", "trailers"), ("connection", "te")]
    crumbs = [value for name, value in fields if name == "cookie"]
    head += [(n, v) for n, v in fields if n != "cookie"] + ([("cookie", "; ".join(crumbs))] if crumbs else [])
    if body is not None and not any(name == "content-length" for name, _ in head):
        head.append(("transfer-encoding", "chunked"))
    got = {"interim": [], "status": None, "headers": [], "body": "", "trailers": [], "broken": False}
    link.send(h11.Request(method=method, target=path, headers=head))

    def upload():
        if body is not None:
            for piece in body:
                link.send(h11.Data(data=piece))
        link.send(h11.EndOfMessage(headers=trailers))

    if not expects:
        upload()
    try:
        while True:
            event = link.next()
            if isinstance(event, h11.InformationalResponse):
                got["interim"].append([event.status_code, text(event.headers)])
                if event.status_code == 100 and expects:
                    upload()
            elif isinstance(event, h11.Response):
                got["status"], got["headers"] = event.status_code, text(event.headers)
            elif isinstance(event, h11.Data):
                got["body"] += bytes(event.data).decode()
            elif isinstance(event, h11.EndOfMessage):
                got["trailers"] = text(event.headers)
                return got
    except h11.RemoteProtocolError:
        got["broken"] = True
        return got


def over_http2(method, path, fields, body, trailers, expects):
    link = Http2()
    got = {"interim": [], "status": None, "headers": [], "body": "", "trailers": [], "broken": False}
    stream = link.request(method, path, [("te", "trailers")] + fields, end=body is None)

    def upload():
        for piece in body:
            link.send(stream, piece)
        if trailers:
            link.conn.send_headers(stream, trailers, end_stream=True)
            link.flush()
        else:
            link.send(stream, b"", end=True)

    if body is not None and not expects:
        upload()
    kinds = (h2.events.InformationalResponseReceived, h2.events.ResponseReceived, h2.events.DataReceived,
             h2.events.TrailersReceived, h2.events.StreamReset, h2.events.StreamEnded)
    while True:
        event = link.wait(kinds, stream)
        if isinstance(event, h2.events.InformationalResponseReceived):
            status = int(dict(event.headers)[":status"])
            got["interim"].append([status, [[n, v] for n, v in event.headers if n != ":status"]])
            if status == 100 and expects:
                upload()
        elif isinstance(event, h2.events.ResponseReceived):
            got["status"] = int(dict(event.headers)[":status"])
            got["headers"] = [[n, v] for n, v in event.headers if n != ":status"]
        elif isinstance(event, h2.events.DataReceived):
            got["body"] += event.data.decode()
        elif isinstance(event, h2.events.TrailersReceived):
            got["trailers"] = text(event.headers)
        elif isinstance(event, h2.events.StreamReset):
            got["broken"] = True
            return got
        elif isinstance(event, h2.events.StreamEnded):
            return got


ask = over_http2 if sys.argv[3] == "2" else over_http1


def run(name, method="GET", path="/", fields=(), body=None, trailers=(), expects=False):
    print(name, json.dumps(ask(method, path, list(fields), body, list(trailers), expects)), flush=True)


run("plain", path="/a/../b?c=d", fields=[("x-one", "1"), ("accept", "*/*")])
run("cookies", fields=[("cookie", "a=1"), ("x-one", "1"), ("cookie", "b=2")])
run("length", "POST", fields=[("content-length", "11")], body=[b"hello ", b"world"])
run("chunks", "POST", body=[b"hello ", b"world"])
run("large", "POST", "/length", body=[b"x" * 16000] * 40)
run("request trailers", "POST", body=[b"hello"], trailers=[("x-up", "1"), ("host", "evil.test"), ("content-length", "7")])
run("expectation", "POST", fields=[("expect", "100-continue"), ("content-length", "5")], body=[b"hello"], expects=True)
run("hints", path="/hints")
run("response trailers", path="/trailers")
run("set-cookie", path="/cookies")
run("head", "HEAD", "/trailers")
run("broken", path="/broken")
run("forged", fields=[("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "203.0.113.9"), ("x-real-ip", "203.0.113.9")])
