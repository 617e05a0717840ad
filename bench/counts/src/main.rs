//! `evenkeel-counts OPERATION TIMES`: one hot function, run so many times; `evenkeel-counts list` names them.
//!
//! Made to be run under callgrind by `cargo xtask counts`, which takes the difference of two runs: whatever is set
//! up before the loop costs the same in both and drops out. Inputs are those of real traffic: a load generator's
//! request, a browser's, a plain origin's response.

mod balancing;
mod messages;

use std::hint::black_box;
use std::process::ExitCode;

/// Prepares an operation and returns it, ready to be repeated.
type Prepare = fn() -> Box<dyn FnMut()>;

/// All operations by name.
const OPERATIONS: &[(&str, Prepare)] = &[
    ("parse_request_small", || {
        messages::parse_request(messages::SMALL_REQUEST)
    }),
    ("parse_request_browser", || {
        messages::parse_request(messages::BROWSER_REQUEST)
    }),
    ("parse_response", messages::parse_response),
    ("write_request_small", || {
        messages::write_request(messages::SMALL_REQUEST)
    }),
    ("write_request_browser", || {
        messages::write_request(messages::BROWSER_REQUEST)
    }),
    ("write_response", messages::write_response),
    ("decode_chunk", messages::decode_chunk),
    ("match_one_of_10_routes", || balancing::find_route(10)),
    ("match_one_of_5000_routes", || balancing::find_route(5000)),
    ("pick_round_robin", || balancing::pick("round_robin")),
    ("pick_least_connections", || balancing::pick("least_connections")),
    ("pick_random", || balancing::pick("random")),
    ("pick_power_of_two", || balancing::pick("power_of_two")),
    ("pick_peak_ewma", || balancing::pick("peak_ewma")),
    ("pick_ip_hash", || balancing::pick("ip_hash")),
    ("pick_ring", || balancing::pick("ring")),
    ("pick_maglev", || balancing::pick("maglev")),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.as_slice() {
        [list] if list == "list" => {
            for (name, _) in OPERATIONS {
                println!("{name}");
            }
            ExitCode::SUCCESS
        }
        [name, times] => match (OPERATIONS.iter().find(|(n, _)| n == name), times.parse::<u64>()) {
            (Some((_, prepare)), Ok(times)) => {
                let mut operation = prepare();
                for _ in 0..times {
                    black_box(&mut operation)();
                }
                ExitCode::SUCCESS
            }
            _ => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: evenkeel-counts OPERATION TIMES | list");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::OPERATIONS;

    #[test]
    fn every_operation_does_what_it_says() {
        // Each checks its own result, so that nothing is counted that fails early.
        for (_, prepare) in OPERATIONS {
            let mut operation = prepare();
            operation();
            operation();
        }
    }
}
