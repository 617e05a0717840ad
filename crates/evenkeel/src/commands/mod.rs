//! One module for each command that is not the load balancer itself. Each returns its exit code, or an error
//! that is printed and exits with 1.

pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod backend;
pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod plan;
pub(crate) mod reload;
pub(crate) mod route;
pub(crate) mod schema;
pub(crate) mod status;
mod status_nodes;
mod status_orchestrators;
mod status_store;
pub(crate) mod store;
pub(crate) mod token;
pub(crate) mod why;

use std::io::{ErrorKind, Write};

/// Prints to standard output. A reader that has seen enough (`| head`) is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
