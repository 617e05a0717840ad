# Clients of HTTP/1.1 (h11) and HTTP/2 that ask a lot and leave when they like; they check that what they get is the
# response to their request, or visibly broken. Follows `h2client.py`. Arguments: address, authority or nothing, protocol
# (1 or 2), seed, prefix of names, how many connections, paths. Prints a line for each request: its name, its method,
# and whether it may be repeated.
import random, time
import h11

protocol, seed, prefix, count, paths = sys.argv[3], sys.argv[4], sys.argv[5], int(sys.argv[6]), sys.argv[7].split(",")
dice = random.Random(f"{seed} {prefix}")
END = time.monotonic() + 60


def content(name, size):
    return ((name + "|").encode() * (size // (len(name) + 1) + 1))[:size]


class Asked:
    def __init__(self, name):
        self.name, self.method = name, dice.choice(["GET", "GET", "POST", "PUT", "DELETE"])
        self.size = dice.choice([0, 1, 500, 17000, 90000])
        self.up = dice.choice([0, 1, 300, 20000, 60000]) if self.method in ("POST", "PUT") else 0
        key = dice.random() < 0.3
        self.path = dice.choice(paths)
        self.fields = [("x-name", name), ("x-size", str(self.size)), ("x-up", str(self.up))]
        if key:
            self.fields.append(("idempotency-key", name))
        self.body = content("to " + name, self.up)
        print(name, self.method, "repeats" if self.method != "POST" or key else "once")

    def check(self, status, fields, body, whole):
        reason = fields.get("x-evenkeel-reason")
        if reason:
            assert not whole or body.startswith(reason.encode()), (self.name, reason, body)
            return
        assert fields.get("x-name") == self.name, ("another's response", self.name, fields)
        wanted = content(self.name, self.size) if status == 200 else b""
        same = body == wanted if whole else wanted.startswith(body)
        assert same, ("another body", self.name, status, fields, len(body), len(wanted), whole)


def http1(number):
    sock = socket.create_connection((host, int(port)), 60)
    if sys.argv[2]:
        sock = ssl.create_default_context(cafile=sys.argv[2]).wrap_socket(sock, server_hostname="shop.test")
    for turn in range(dice.randrange(1, 7)):
        asked = Asked(f"{prefix}-{number}-{turn}")
        conn = h11.Connection(h11.CLIENT) if turn == 0 else conn
        chunked = asked.up and dice.random() < 0.5
        length = ("transfer-encoding", "chunked") if chunked else ("content-length", str(asked.up))
        fields = asked.fields + [("host", "shop.test")] + ([length] if asked.up else [])
        data = conn.send(h11.Request(method=asked.method, target=asked.path, headers=fields))
        if asked.up:
            data += conn.send(h11.Data(data=asked.body))
        data += conn.send(h11.EndOfMessage())
        leaves = dice.random()
        if leaves < 0.08:
            sock.sendall(data[:dice.randrange(len(data))])
            return sock.close()
        head, body = None, b""
        try:
            sock.sendall(data)
            if leaves < 0.16:
                return sock.close()
            while True:
                event = conn.next_event()
                if event is h11.NEED_DATA:
                    try:
                        conn.receive_data(sock.recv(65536))
                    except ssl.SSLEOFError:
                        raise ConnectionResetError("cut off")
                elif isinstance(event, h11.Response):
                    head = (event.status_code, {n.decode(): v.decode() for n, v in event.headers})
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    assert isinstance(event, h11.InformationalResponse), (asked.name, event)
        except (h11.RemoteProtocolError, ConnectionError) as error:
            # Broken off, or closed over a body that nobody reads any more.
            ended = isinstance(error, ConnectionError) or "closed" in str(error).lower()
            assert ended and (head or asked.up > 16000), (asked.name, asked.method, asked.path, error)
            if head:
                asked.check(*head, body, whole=False)
            return sock.close()
        asked.check(*head, body, whole=True)
        if conn.our_state is not h11.DONE or conn.their_state is not h11.DONE:
            return sock.close()
        conn.start_next_cycle()
    sock.close()


def http2(number):
    client, streams = Http2(), {}
    try:
        for turn in range(dice.randrange(1, 7)):
            asked = Asked(f"{prefix}-{number}-{turn}")
            stream = client.request(asked.method, asked.path, asked.fields, end=not asked.up)
            streams[stream] = asked
            try:
                if asked.up:
                    client.send(stream, asked.body, end=True)
            except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
                pass
        for stream, asked in streams.items():
            if dice.random() < 0.1:
                try:
                    client.conn.reset_stream(stream, 8)
                except h2.exceptions.StreamClosedError:
                    pass
                client.flush()
                continue
            got = client.response(stream)
            head = dict(got["headers"] or [])
            if head:
                asked.check(int(head[":status"]), head, got["body"], whole=got["reset"] is None)
            else:
                assert got["reset"] is not None, (asked.name, got)
    except h2.exceptions.ProtocolError as error:
        # The library takes no interim response to a stream that it has reset.
        assert "INFORMATIONAL" in str(error), error
    client.sock.close()


for number in range(count):
    {"1": http1, "2": http2}[protocol](number)
    if time.monotonic() > END:
        break
print("done")
