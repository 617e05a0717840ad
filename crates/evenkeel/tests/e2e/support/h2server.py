# A server of HTTP/2 made of Python's h2. Arguments: host, port, and settings as NAME=VALUE:
#   connect=1         offers extended CONNECT (RFC 8441), and echoes what comes on such streams
#   cert=, key=       speaks TLS; alpn= names what it agrees to (h2 unless told otherwise)
#   streams=N         streams at once
#   wide=1            a window of the connection that streams do not fill
#   deaf=1            reads nothing more once it has answered its first request, so that pings stay unanswered
# What it does with a request, its path says; see `answer`.
import json, socket, ssl, sys, threading, time
import h2.config, h2.connection, h2.events, h2.exceptions, h2.settings
import wsproto.connection, wsproto.events

told = dict(arg.split("=", 1) for arg in sys.argv[3:])
numbers = iter(range(1, 1 << 30))


class Connection:
    def __init__(self, sock):
        self.sock, self.number = sock, next(numbers)
        config = h2.config.H2Configuration(client_side=False, header_encoding="utf-8", validate_outbound_headers=False)
        self.conn = h2.connection.H2Connection(config)
        settings = {h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 100}
        if told.get("connect"):
            settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] = 1
        if told.get("streams"):
            settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = int(told["streams"])
        self.conn.local_settings = h2.settings.Settings(client=False, initial_values=settings)
        self.conn.initiate_connection()
        if told.get("wide"):
            self.conn.increment_flow_control_window(1 << 26)
        self.streams = {}
        self.waiting = {}

    def flush(self):
        data = self.conn.data_to_send()
        if data:
            self.sock.sendall(data)

    def serve(self):
        self.flush()
        while True:
            data = self.sock.recv(65536)
            if not data:
                return
            for event in self.conn.receive_data(data):
                self.handle(event)
            for stream in list(self.waiting):
                self.pump(stream)
            self.flush()
            if told.get("deaf") and any(stream["answered"] for stream in self.streams.values()):
                time.sleep(3600)

    def handle(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.RequestReceived):
            stream = {"headers": list(event.headers), "body": b"", "trailers": [], "answered": False}
            self.streams[event.stream_id] = stream
            self.begin(event.stream_id, dict(event.headers), stream)
        elif isinstance(event, h2.events.DataReceived):
            stream["body"] += event.data
            if stream["headers"][0][1] == "CONNECT":
                self.tunnel(event.stream_id, stream, event)
                return
            if not stream.get("stuck"):
                self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            stream["trailers"] = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.answer(event.stream_id, stream)
        elif isinstance(event, h2.events.StreamReset):
            resets.append(int(event.error_code))
            self.streams.pop(event.stream_id, None)
            self.waiting.pop(event.stream_id, None)

    def begin(self, number, head, stream):
        "What is done before the body is here."
        path = head[":path"].split("?")[0]
        if head[":method"] == "CONNECT":
            stream["path"] = path
            if path == "/declined":
                self.respond(number, stream, b"no", [(":status", "403")])
                return
            stream["unread"] = path == "/unread"
            if path == "/chat":
                stream["chat"] = wsproto.connection.Connection(wsproto.connection.ConnectionType.SERVER)
            assert "sec-websocket-key" not in head, head
            self.conn.send_headers(number, [(":status", "200"), ("x-protocol", head[":protocol"]), ("x-seen", json.dumps(head))])
            stream["answered"] = True
            if path == "/flood":
                self.send(number, b"f" * 1_000_000)
        elif path == "/stuck":
            stream["stuck"] = True
        elif path == "/refused":
            self.conn.reset_stream(number, 7)
        elif path == "/reset-at-once":
            self.conn.reset_stream(number, 2)
        elif head.get("expect") == "100-continue":
            self.conn.send_headers(number, [(":status", "100")])

    def tunnel(self, number, stream, event):
        data, stream["body"] = stream["body"], b""
        if stream.get("unread"):
            return
        self.conn.acknowledge_received_data(event.flow_controlled_length, number)
        if stream.get("chat"):
            self.chat(number, stream["chat"], data)
            return
        if data.startswith(b"reset!"):
            self.conn.reset_stream(number, 8)
            return
        if data.startswith(b"goaway!"):
            # Written by hand: Python's h2 ends a connection with it.
            last = self.conn.highest_inbound_stream_id
            self.flush()
            self.sock.sendall(bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + last.to_bytes(4, "big") + bytes(4))
        self.send(number, data)

    def chat(self, number, socket, data):
        "Says back what it hears, until it hears `close`."
        socket.receive_data(data)
        for event in socket.events():
            if isinstance(event, wsproto.events.TextMessage) and event.data == "close":
                self.send(number, socket.send(wsproto.events.CloseConnection(1000, "as you wish")))
            elif isinstance(event, wsproto.events.Message):
                self.send(number, socket.send(type(event)(event.data, event.frame_finished, event.message_finished)))
            elif isinstance(event, wsproto.events.Ping):
                self.send(number, socket.send(event.response()))
            elif isinstance(event, wsproto.events.CloseConnection):
                self.send(number, b"", end=True)

    def answer(self, number, stream):
        "What is done once all of the request is here."
        head = dict(stream["headers"])
        if head[":method"] == "CONNECT":
            self.send(number, b"", end=True)
            return
        path = head[":path"].split("?")[0]
        seen = {"headers": stream["headers"], "body": stream["body"].decode("latin-1"), "trailers": stream["trailers"],
                "connection": self.number, "resets": resets}
        if path == "/hints":
            self.conn.send_headers(number, [(":status", "103"), ("link", "</a.css>")])
            self.respond(number, stream, b"hinted")
        elif path == "/trailers":
            self.respond(number, stream, b"body", end=False)
            self.conn.send_headers(number, [("x-sum", "7")], end_stream=True)
        elif path == "/broken":
            self.respond(number, stream, b"half", [(":status", "200"), ("content-length", "100")], end=False)
            self.flush()
            self.conn.reset_stream(number, 2)
        elif path == "/cookies":
            self.respond(number, stream, b"", [(":status", "204"), ("set-cookie", "a=1"), ("set-cookie", "b=2")])
        elif path == "/large":
            self.respond(number, stream, b"x" * 3_000_000)
        elif path == "/held":
            stream["held"] = True
        elif path == "/slow":
            time.sleep(0.05)
            self.respond(number, stream, b"slow")
        else:
            self.respond(number, stream, json.dumps(seen).encode())

    def respond(self, number, stream, body, head=((":status", "200"),), end=True):
        stream["answered"] = True
        self.conn.send_headers(number, list(head))
        self.send(number, body, end)

    def send(self, number, data, end=False):
        rest, ends = self.waiting.get(number, (b"", False))
        self.waiting[number] = (rest + data, ends or end)
        self.pump(number)

    def pump(self, number):
        "Sends what the windows allow."
        data, end = self.waiting[number]
        try:
            while data:
                room = min(self.conn.local_flow_control_window(number), self.conn.max_outbound_frame_size, len(data))
                if room <= 0:
                    self.waiting[number] = (data, end)
                    return
                self.conn.send_data(number, data[:room])
                data = data[room:]
            if end:
                self.conn.end_stream(number)
        except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError, KeyError):
            pass
        self.waiting.pop(number, None)


def run(sock):
    try:
        if told.get("cert"):
            sock = context.wrap_socket(sock, server_side=True)
        Connection(sock).serve()
    except (OSError, h2.exceptions.ProtocolError):
        pass
    finally:
        sock.close()


resets = []
if told.get("cert"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(told["cert"], told["key"])
    context.set_alpn_protocols([told.get("alpn", "h2")])
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=128)
while True:
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=run, args=(sock,), daemon=True).start()
