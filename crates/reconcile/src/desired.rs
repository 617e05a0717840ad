//! The desired layer as it stands in a store that several processes share: the load balancers that `evenkeel apply`
//! put there, and every change of them that is still remembered.
//!
//! **Content first, then one small transaction.** A load balancer is one object, named by the digest of its content,
//! and put before anything refers to it. A change is one [`records::LogRecord`] and the new [`records::Head`], written together by a
//! transaction that compares the head as it was read: two writers never both win, and nothing is ever half applied.
//! Who follows reads one small record and the objects that it lacks.
//!
//! - [`poll`]: when a node looks by itself.
//! - [`records`]: what stands in the store, and how states follow from it.
//! - [`commands`]: what apply, delete, rollback, confirm and revert write, or why they are refused.
//! - [`garbage`]: what nothing needs any more.
//! - [`trial`]: when a change that awaits its confirmation is taken back.
//! - [`touched`]: which routes it touched.
//!
//! Pure: no store, no clock. The shell reads, asks here what is to be written, and writes that.

pub mod commands;
pub mod garbage;
pub mod poll;
pub mod records;
pub mod touched;
pub mod trial;
