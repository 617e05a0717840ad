# A client of HTTP/2 made of Python's h2. Arguments: the address; for TLS the file of the authority to trust, else
# nothing; what the scenario wants.
import json, socket, ssl, sys
import h2.config, h2.connection, h2.events, h2.exceptions, h2.settings

host, port = sys.argv[1].rsplit(":", 1)


class Http2:
    def __init__(self, window=None):
        self.sock = socket.create_connection((host, int(port)), 60)
        self.sock.settimeout(60)
        self.scheme = "http"
        if sys.argv[2:] and sys.argv[2]:
            context = ssl.create_default_context(cafile=sys.argv[2])
            context.set_alpn_protocols(["h2", "http/1.1"])
            self.sock = context.wrap_socket(self.sock, server_hostname="shop.test")
            assert self.sock.selected_alpn_protocol() == "h2", self.sock.selected_alpn_protocol()
            self.scheme = "https"
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        self.conn = h2.connection.H2Connection(config)
        if window is not None:
            self.conn.local_settings.initial_window_size = window
        self.conn.initiate_connection()
        self.events = self.receive()
        # Streams whose bytes are not acknowledged, so that their windows close.
        self.unread = set()
        self.kept = []
        self.flush()

    def flush(self):
        data = self.conn.data_to_send()
        if data:
            self.sock.sendall(data)

    def receive(self):
        "Events until the connection ends, with windows opened again."
        while True:
            data = self.sock.recv(65536)
            if not data:
                return
            events = self.conn.receive_data(data)
            # Data of a stream that was reset makes no event, and yet opens the connection's window.
            self.flush()
            for event in events:
                if isinstance(event, h2.events.DataReceived) and event.stream_id not in self.unread:
                    try:
                        self.conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    except h2.exceptions.StreamClosedError:
                        pass
                self.flush()
                yield event

    def wait(self, kind, stream=None):
        "The next event of a kind; others are kept for whoever waits for them."
        wanted = lambda e: isinstance(e, kind) and (stream is None or getattr(e, "stream_id", None) == stream)
        for i, event in enumerate(self.kept):
            if wanted(event):
                return self.kept.pop(i)
        for event in self.events:
            if wanted(event):
                return event
            self.kept.append(event)
        raise EOFError("the connection ended")

    def settings(self):
        "What the server has said about extended CONNECT, once it has said anything."
        self.wait(h2.events.RemoteSettingsChanged)
        return self.conn.remote_settings.enable_connect_protocol

    def request(self, method="GET", path="/", more=(), end=True):
        stream = self.conn.get_next_available_stream_id()
        head = [(":method", method), (":scheme", self.scheme), (":authority", "shop.test"), (":path", path)]
        pseudo = [field for field in more if field[0].startswith(":")]
        rest = [field for field in more if not field[0].startswith(":")]
        self.conn.send_headers(stream, head + pseudo + rest, end_stream=end)
        self.flush()
        return stream

    def connect(self, path="/", more=(), protocol="websocket"):
        "An extended CONNECT (RFC 8441)."
        version = [("sec-websocket-version", "13")] if protocol == "websocket" else []
        return self.request("CONNECT", path, [(":protocol", protocol)] + version + list(more), end=False)

    def send(self, stream, data, end=False):
        "Sends all of it, as fast as the windows open."
        while data:
            room = min(self.conn.local_flow_control_window(stream), self.conn.max_outbound_frame_size, len(data))
            if room == 0:
                self.kept.append(next(self.events))
                continue
            self.conn.send_data(stream, data[:room])
            data = data[room:]
            self.flush()
        if end:
            self.conn.end_stream(stream)
        self.flush()

    def response(self, stream):
        "All that comes for one stream, to its end."
        got = {"interim": [], "headers": None, "body": b"", "trailers": None, "reset": None}
        kinds = (h2.events.InformationalResponseReceived, h2.events.ResponseReceived, h2.events.DataReceived,
                 h2.events.TrailersReceived, h2.events.StreamReset, h2.events.StreamEnded)
        while True:
            event = self.wait(kinds, stream)
            if isinstance(event, h2.events.InformationalResponseReceived):
                got["interim"].append(list(event.headers))
            elif isinstance(event, h2.events.ResponseReceived):
                got["headers"] = list(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                got["body"] += event.data
            elif isinstance(event, h2.events.TrailersReceived):
                got["trailers"] = list(event.headers)
            elif isinstance(event, h2.events.StreamReset):
                got["reset"] = int(event.error_code)
                return got
            elif isinstance(event, h2.events.StreamEnded):
                return got

    def head(self, stream):
        "The head of a response, as a dictionary."
        kinds = (h2.events.ResponseReceived, h2.events.StreamReset)
        event = self.wait(kinds, stream)
        return dict(event.headers) if isinstance(event, h2.events.ResponseReceived) else {"reset": int(event.error_code)}

    def exactly(self, stream, count):
        "As many bytes of a stream."
        data = b""
        while len(data) < count:
            data += self.wait(h2.events.DataReceived, stream).data
        assert len(data) == count, (len(data), count)
        return data

    def ending(self, stream):
        "How a stream ends: `end`, or the code of its reset."
        event = self.wait((h2.events.StreamEnded, h2.events.StreamReset), stream)
        return int(event.error_code) if isinstance(event, h2.events.StreamReset) else "end"

    def reset(self, stream, code=8):
        self.conn.reset_stream(stream, code)
        self.flush()
