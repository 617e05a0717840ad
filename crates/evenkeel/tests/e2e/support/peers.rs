//! Servers and clients that were not written here.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

use super::{free_address, wait_until};

/// A client of the `websockets` library that sends messages of growing size to a URL and compares what comes back.
pub(crate) const WEBSOCKETS_TALK: &str = r#"
import asyncio, os, sys
from websockets.asyncio.client import connect

async def main():
    async with connect(sys.argv[1], max_size=None, proxy=None) as socket:
        for size in (1, 100, 5000, 70000, 3000000):
            message = os.urandom(size)
            await socket.send(message)
            assert await socket.recv() == message, size
        await socket.send("close")
        try:
            await socket.recv()
        except Exception as error:
            print(socket.close_code, socket.close_reason)

asyncio.run(main())
"#;

/// A server of the `websockets` library that says back what it hears.
pub(crate) const WEBSOCKETS: &str = r#"
import asyncio, sys
from websockets.asyncio.server import serve

async def echo(socket):
    async for message in socket:
        if message == "close":
            await socket.close(1000, "as you wish")
            return
        await socket.send(message)

async def main():
    async with serve(echo, sys.argv[1], int(sys.argv[2]), max_size=None) as server:
        await server.serve_forever()

asyncio.run(main())
"#;

/// Finds a program of a Debian package, or says how to get it.
fn need(name: &str, package: &str) -> String {
    let usual = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(usual);
    let found = dirs.map(|d| Path::new(d).join(name)).find(|p| p.is_file());
    found
        .unwrap_or_else(|| {
            panic!("this test needs `{name}`: apt-get install {package} (cargo xtask test does it)")
        })
        .to_string_lossy()
        .into_owned()
}

/// A process that is killed when dropped, and can be started again.
struct Server {
    command: Mutex<Command>,
    child: Mutex<Option<Child>>,
    address: SocketAddr,
}

impl Server {
    fn start(&self) {
        let mut command = self.command.lock().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        *self.child.lock().unwrap() = Some(child.expect("the server starts"));
        wait_until("the server listens", || {
            std::net::TcpStream::connect(self.address).is_ok()
        });
    }

    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// nginx with keep-alive, in one process, so that `kill -9` ends all of it.
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    server: Server,
    dir: TempDir,
}

impl Nginx {
    /// Answers every path with `name` (also in `X-Backend`), `/files/` with files and `/upload` by taking a body.
    pub(crate) fn start(name: &str) -> Self {
        Self::start_with(name, "", "")
    }

    /// The same with words behind the address of `listen`, and further settings of the server.
    pub(crate) fn start_with(name: &str, listen: &str, more: &str) -> Self {
        let program = need("nginx", "nginx");
        let address = free_address();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().display();
        fs::create_dir(dir.path().join("files")).expect("a directory");
        let config = format!(
            "daemon off;\nmaster_process off;\nuser root;\npid {root}/pid;\nerror_log {root}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{\naccess_log off;\nclient_body_temp_path {root}/body;\nproxy_temp_path {root}/proxy;\n\
             fastcgi_temp_path {root}/fastcgi;\nuwsgi_temp_path {root}/uwsgi;\nscgi_temp_path {root}/scgi;\n\
             keepalive_requests 1000000;\nclient_max_body_size 0;\n\
             server {{\nlisten {address} {listen};\n{more}\nadd_header X-Backend {name};\n\
             location / {{ return 200 \"{name}\"; }}\n\
             location /files/ {{ root {root}; }}\n\
             location /put/ {{ alias {root}/files/; dav_methods PUT; }}\n}}\n}}\n"
        );
        fs::write(dir.path().join("nginx.conf"), config).expect("its config");
        let mut command = Command::new(program);
        command
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(dir.path().join("nginx.conf"));
        let server = Server {
            command: Mutex::new(command),
            child: Mutex::new(None),
            address,
        };
        server.start();
        Self { address, server, dir }
    }

    /// Puts a file below `/files/`.
    pub(crate) fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.dir.path().join("files").join(name), content).expect("a file");
    }

    /// What was put below `/put/`.
    pub(crate) fn uploaded(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("files").join(name)).expect("an uploaded file")
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        self.server.kill();
    }

    /// Starts again on the same address.
    pub(crate) fn restart(&self) {
        self.server.start();
    }
}

/// Python's `http.server`: an HTTP/1.0 origin that closes after each answer.
pub(crate) struct Python {
    pub(crate) address: SocketAddr,
    dir: TempDir,
    _server: Server,
}

impl Python {
    pub(crate) fn start() -> Self {
        let program = need("python3", "python3");
        let address = free_address();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new(program);
        command
            .args([
                "-m",
                "http.server",
                "--bind",
                &address.ip().to_string(),
                &address.port().to_string(),
            ])
            .current_dir(dir.path());
        let server = Server {
            command: Mutex::new(command),
            child: Mutex::new(None),
            address,
        };
        server.start();
        Self {
            address,
            dir,
            _server: server,
        }
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) {
        fs::write(self.dir.path().join(name), content).expect("a file");
    }
}

/// The Python that has the peers from PyPI.
pub(crate) fn python_with_peers() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/test-venv/bin/python");
    assert!(
        python.is_file(),
        "this test needs peers from PyPI: run `cargo xtask tools` (cargo xtask test does it)"
    );
    python
}

/// A Python program with peers from PyPI, started with arguments; killed when dropped.
pub(crate) struct PythonPeer(Server);

impl PythonPeer {
    /// Runs `program`, which listens on the address that it gets as its first two arguments, host and port.
    pub(crate) fn start(program: &str) -> Self {
        Self::start_with(program, &[])
    }

    /// The same, with further arguments.
    pub(crate) fn start_with(program: &str, args: &[&str]) -> Self {
        Self::start_at(free_address(), program, args)
    }

    /// The same on this address.
    pub(crate) fn start_at(address: SocketAddr, program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(python_with_peers());
        command
            .arg("-c")
            .arg(program)
            .args([address.ip().to_string(), address.port().to_string()])
            .args(args);
        let server = Server {
            command: Mutex::new(command),
            child: Mutex::new(None),
            address,
        };
        server.start();
        Self(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.address
    }
}

/// Runs a Python program with peers from PyPI to its end; what it printed.
pub(crate) fn python(program: &str, args: &[&str]) -> String {
    let output = Command::new(python_with_peers())
        .arg("-c")
        .arg(program)
        .args(args)
        .output()
        .expect("Python runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    out.into_owned()
}

/// Runs `scenario` with the client of HTTP/2 in `h2client.py`, whose class is `Http2`; what it printed. `args` begin
/// with the address.
pub(crate) fn http2_client(scenario: &str, args: &[&str]) -> String {
    let client = include_str!("h2client.py");
    python(&format!("{client}\n{scenario}"), args)
}

/// A server of HTTP/2 in Python, see `h2server.py` for its settings.
pub(crate) fn http2_server(settings: &[&str]) -> PythonPeer {
    PythonPeer::start_with(include_str!("h2server.py"), settings)
}

/// Runs `openssl` with nothing to read; what it printed, also when it failed.
pub(crate) fn openssl(args: &[&str]) -> String {
    let output = Command::new(need("openssl", "openssl"))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("openssl runs");
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}\n{err}")
}

/// Runs curl.
pub(crate) fn curl(args: &[&str]) -> Output {
    let program = need("curl", "curl");
    let output = Command::new(program)
        .args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "60"])
        .args(args)
        .output()
        .expect("curl runs");
    assert!(
        output.status.success(),
        "curl {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs h2load of nghttp2; what it printed.
pub(crate) fn h2load(args: &[&str]) -> String {
    let program = need("h2load", "nghttp2-client");
    let output = Command::new(program).args(args).output().expect("h2load runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
