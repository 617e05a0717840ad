# A server that does wrong in every way it can, over HTTP/1.1 or HTTP/2, in clear or over TLS. Arguments: host, port, and
# settings as NAME=VALUE:
#   protocol=       http1 or http2
#   cert=, key=     speaks TLS
#   more=           another address to listen on
#   log=            a file for what it gets: a line `head NAME WAY` for each request, or `unseen NAME WAY` where it tells
#                   that it did not look at it, and `body NAME ok` or `body NAME wrong` for each that came whole
#   seed=           another number, other faults
# What a request wants, its fields say: X-Name, X-Size (of the response), X-Up (what it holds itself).
import random, socket, ssl, struct, sys, threading
import h2.config, h2.connection, h2.events, h2.exceptions

told = dict(arg.split("=", 1) for arg in sys.argv[3:])
log, lock = open(told["log"], "ab", buffering=0), threading.Lock()
WELL = ["well"] * 8
WAYS = {
    "http1": WELL + ["chunks", "until-close", "cut-off", "close", "reset", "stall", "busy", "busy-early", "garbage",
                     "hints", "short", "half-chunk"],
    "http2": WELL + ["trailers", "hints", "close", "refused", "reset", "stall", "busy", "busy-early", "garbage", "goaway",
                     "goaway-after", "short", "cut", "cut-off"],
}[told["protocol"]]


def content(name, size):
    return ((name + "|").encode() * (size // (len(name) + 1) + 1))[:size]


def note(*words):
    with lock:
        log.write((" ".join(words) + "\n").encode())


def arrived(name, up, body):
    note("body", name, "ok" if body == content("to " + name, up) else "wrong")


def abort(sock):
    "The end of the connection is a reset."
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Ended(Exception):
    pass


class Http1:
    def __init__(self, sock, dice):
        self.sock, self.dice, self.buffer = sock, dice, b""

    def more(self):
        data = self.sock.recv(65536)
        if not data:
            raise Ended
        self.buffer += data

    def exactly(self, count):
        while len(self.buffer) < count:
            self.more()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def until(self, end):
        while end not in self.buffer:
            self.more()
        taken, self.buffer = self.buffer.split(end, 1)
        return taken

    def body(self, fields):
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                body += self.exactly(size)
                self.exactly(2)
            while self.until(b"\r\n"):
                pass
            return body
        return self.exactly(int(fields.get("content-length", 0)))

    def serve(self):
        while True:
            lines = self.until(b"\r\n\r\n").decode().split("\r\n")
            fields = {line.split(":", 1)[0].lower(): line.split(":", 1)[1].strip() for line in lines[1:]}
            name, size, up = fields["x-name"], int(fields["x-size"]), int(fields["x-up"])
            way, whole = self.dice.choice(WAYS), content(name, size)
            note("head", name, way)
            head = lambda first, more: f"HTTP/1.1 {first}\r\nX-Name: {name}\r\n{more}\r\n\r\n".encode()
            if way == "close":
                return
            if way == "reset":
                return abort(self.sock)
            if way == "stall":
                while True:
                    self.more()
            if way == "busy-early":
                self.sock.sendall(head("503 Busy", "Content-Length: 0"))
            arrived(name, up, self.body(fields))
            good = head("200 OK", f"Content-Length: {size}") + whole
            chunks = head("200 OK", "Transfer-Encoding: chunked")
            chunks += b"%x\r\n%s\r\n" % (size, whole) if size else b""
            if way == "well":
                self.sock.sendall(good)
            elif way == "hints":
                self.sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2 + good)
            elif way == "chunks":
                self.sock.sendall(chunks + b"0\r\n\r\n")
            elif way == "busy":
                self.sock.sendall(head("503 Busy", "Content-Length: 0"))
            elif way == "until-close":
                self.sock.sendall(head("200 OK", "Connection: close") + whole)
                if isinstance(self.sock, ssl.SSLSocket):
                    self.sock.unwrap()
                return
            elif way == "cut-off":
                # Over TLS the end is forged: nobody has said that this was all. In clear only a reset tells.
                self.sock.sendall(head("200 OK", "Connection: close") + whole[:size // 2])
                return None if isinstance(self.sock, ssl.SSLSocket) else abort(self.sock)
            elif way == "short":
                self.sock.sendall(head("200 OK", f"Content-Length: {size + 9}") + whole)
                return
            elif way == "half-chunk":
                self.sock.sendall(chunks[:-3] if size else chunks)
                return
            elif way == "garbage":
                self.sock.sendall(b"\0\1nonsense\r\n\r\n")
                return


class Http2:
    def __init__(self, sock, dice):
        self.sock, self.dice, self.streams, self.waiting = sock, dice, {}, {}
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        self.conn = h2.connection.H2Connection(config)

    def flush(self):
        data = self.conn.data_to_send()
        if data:
            self.sock.sendall(data)

    def serve(self):
        self.conn.initiate_connection()
        self.flush()
        while data := self.sock.recv(65536):
            for event in self.conn.receive_data(data):
                self.handle(event, getattr(event, "stream_id", None))
            for number in list(self.waiting):
                self.pump(number)
            self.flush()

    def handle(self, event, number):
        if isinstance(event, h2.events.RequestReceived):
            fields = dict(event.headers)
            stream = {"name": fields["x-name"], "size": int(fields["x-size"]), "up": int(fields["x-up"]), "body": b"",
                      "way": self.dice.choice(WAYS)}
            # What was not looked at may be sent again, whatever it is.
            unseen = stream["way"] in ("refused", "goaway")
            note("unseen" if unseen else "head", stream["name"], stream["way"])
            self.streams[number] = stream
            self.begin(number, stream)
        elif isinstance(event, h2.events.DataReceived):
            self.conn.acknowledge_received_data(event.flow_controlled_length, number)
            if number in self.streams:
                self.streams[number]["body"] += event.data
        elif isinstance(event, h2.events.StreamEnded) and number in self.streams:
            stream = self.streams.pop(number)
            arrived(stream["name"], stream["up"], stream["body"])
            self.answer(number, stream)
        elif isinstance(event, h2.events.StreamReset):
            self.streams.pop(number, None)
            self.waiting.pop(number, None)

    def begin(self, number, stream):
        way = stream["way"]
        if way in ("close", "garbage", "goaway"):
            if way == "garbage":
                # A PING of three bytes.
                self.sock.sendall(b"\0\0\3\x06\0\0\0\0\0abc")
            if way == "goaway":
                # This one was not looked at.
                self.conn.close_connection(0, last_stream_id=max(number - 2, 0))
                self.flush()
            raise Ended
        if way in ("reset", "refused"):
            self.conn.reset_stream(number, {"reset": 2, "refused": 7}[way])
            self.streams.pop(number)
        elif way == "busy-early":
            self.head(number, stream, "503", end=True)
            self.conn.reset_stream(number, 0)
            self.streams.pop(number)

    def head(self, number, stream, status, more=(), end=False):
        self.conn.send_headers(number, [(":status", status), ("x-name", stream["name"])] + list(more), end_stream=end)

    def answer(self, number, stream):
        way, whole = stream["way"], content(stream["name"], stream["size"])
        length = ("content-length", str(stream["size"]))
        if way == "stall":
            return
        if way == "busy":
            return self.head(number, stream, "503", end=True)
        if way == "hints":
            self.conn.send_headers(number, [(":status", "103"), ("link", "</a>")])
        if way == "short":
            length = ("content-length", str(stream["size"] + 9))
        self.head(number, stream, "200", [] if way == "trailers" else [length])
        if way in ("cut", "cut-off"):
            whole = whole[:stream["size"] // 2]
        self.waiting[number] = [whole, way]
        self.pump(number)

    def pump(self, number):
        whole, way = self.waiting[number]
        try:
            while whole:
                room = min(self.conn.local_flow_control_window(number), self.conn.max_outbound_frame_size, len(whole))
                if room == 0:
                    self.waiting[number][0] = whole
                    return
                self.conn.send_data(number, whole[:room])
                whole = whole[room:]
            self.waiting.pop(number)
            if way == "cut":
                self.conn.reset_stream(number, 2)
            elif way == "cut-off":
                self.flush()
                raise Ended
            elif way == "trailers":
                self.conn.send_headers(number, [("x-sum", "7")], end_stream=True)
            else:
                self.conn.end_stream(number)
        except h2.exceptions.StreamClosedError:
            self.waiting.pop(number, None)
        if way == "goaway-after":
            self.conn.close_connection(0)
            self.flush()
            raise Ended


def connection(sock, number, context):
    dice = random.Random(f"{told['seed']} {number}")
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context:
            fault = dice.randrange(24)
            if fault == 0:
                return
            if fault == 1:
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\ninjected")
                return
            if fault == 2:
                return abort(sock)
            sock = context.wrap_socket(sock, server_side=True)
        {"http1": Http1, "http2": Http2}[told["protocol"]](sock, dice).serve()
    except (Ended, OSError, h2.exceptions.ProtocolError):
        pass
    finally:
        sock.close()


def listen(address, context, offset):
    listener = socket.create_server(address)
    number = offset
    while True:
        sock, _ = listener.accept()
        number += 2
        threading.Thread(target=connection, args=(sock, number, context), daemon=True).start()


context = None
if "cert" in told:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(told["cert"], told["key"])
    context.set_alpn_protocols(["h2"] if told["protocol"] == "http2" else ["http/1.1"])
host, port = told["more"].rsplit(":", 1)
threading.Thread(target=listen, args=((host, int(port)), context, 1), daemon=True).start()
listen((sys.argv[1], int(sys.argv[2])), context, 0)
