//! A line to a server that can be held: what is sent meanwhile arrives late, but it arrives.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Clone, Default)]
struct Hold(Arc<(Mutex<bool>, Condvar)>);

pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    hold: Hold,
    to: Arc<Mutex<SocketAddr>>,
}

impl Line {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hold = Hold::default();
        let held = hold.clone();
        let to = Arc::new(Mutex::new(server));
        let target = to.clone();
        // Ends with the process of the test: nobody is told, and it holds nothing but a port.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, held) = (client.unwrap(), held.clone());
                let Ok(server) = TcpStream::connect(*target.lock().unwrap()) else {
                    continue;
                };
                let (back, there) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                let hold = held.clone();
                std::thread::spawn(move || pump(client, server, &hold));
                std::thread::spawn(move || pump(back, there, &held));
            }
        });
        Self { address, hold, to }
    }

    /// Who connects from now on is led to another server.
    pub(crate) fn lead_to(&self, server: SocketAddr) {
        *self.to.lock().unwrap() = server;
    }

    pub(crate) fn hold(&self) {
        *self.hold.0.0.lock().unwrap() = true;
    }

    pub(crate) fn release(&self) {
        *self.hold.0.0.lock().unwrap() = false;
        self.hold.0.1.notify_all();
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, hold: &Hold) {
    let mut some = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut some).unwrap_or(0);
        let held = hold.0.0.lock().unwrap();
        drop(hold.0.1.wait_while(held, |held| *held).unwrap());
        if read == 0 || to.write_all(&some[..read]).is_err() {
            drop(to.shutdown(Shutdown::Write));
            return;
        }
    }
}
