//! One module for each command that is not the load balancer itself. Each returns its exit code, or an error
//! that is printed and exits with 1.

pub(crate) mod backend;
pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod reload;
pub(crate) mod schema;
pub(crate) mod status;
