//! Tests over the repository itself: what a reviewer would otherwise have to remember.
//!
//! Each file holds one concern; the lists in them are the law, with the reasons beside. What a compiler or
//! clippy can hold is left to them.

mod arrows;
mod documents;
mod licences;
mod reasons;
mod sizes;
mod source;
mod style;
mod tools;
