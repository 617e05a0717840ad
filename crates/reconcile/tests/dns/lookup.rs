//! One look: what is asked of whom, and what an answer means.

use std::net::SocketAddr;

use domain::base::iana::{Rcode, Rtype};
use evenkeel_reconcile::discovery::dns::{Exchange, Failure, Lookup, MAX_QUESTIONS, Outcome, Transport};
use model::config::{AddressFamily, DnsLookup, DnsRecords};

use super::server::{Answer, Data, asked, ip, nothing, records, write};
use super::{address, addresses, settings};

/// What a server does with a question.
enum Does {
    Answers(Answer),
    Sends(Vec<Vec<u8>>),
    Fails(Failure),
}

fn server(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 53).into()
}

/// A look at servers 1 to `servers`, and every question that it took.
fn look(
    settings: &DnsLookup,
    servers: u8,
    mut does: impl FnMut(&Exchange) -> Does,
) -> (Outcome, Vec<(SocketAddr, Transport, String, Rtype)>) {
    let servers = (1..=servers).map(server).collect();
    let mut lookup = Lookup::new(settings, servers, None, 0);
    let (mut now, mut rand, mut log) = (0, 77, Vec::new());
    while let Some(exchange) = lookup.next(now, rand) {
        rand = rand.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (name, kind, size) = asked(&exchange.message);
        assert_eq!(size, 1232);
        log.push((exchange.server, exchange.transport, name, kind));
        assert!(log.len() <= 8 * MAX_QUESTIONS, "it has no end");
        match does(&exchange) {
            Does::Answers(answer) => {
                assert!(lookup.heard(&write(&exchange.message, &answer)));
            }
            Does::Sends(messages) => {
                if !messages.iter().any(|message| lookup.heard(message)) {
                    now += exchange.timeout_ms;
                    lookup.failed(Failure::TimedOut);
                }
            }
            Does::Fails(why) => {
                now += exchange.timeout_ms;
                lookup.failed(why);
            }
        }
    }
    (lookup.outcome(), log)
}

fn found(outcome: &Outcome) -> Vec<(String, u32)> {
    let found = outcome.found.iter();
    found
        .map(|(address, weight)| (address.to_string(), *weight))
        .collect()
}

fn both(exchange: &Exchange) -> Does {
    Does::Answers(match asked(&exchange.message).1 {
        Rtype::A => records(vec![
            ip("app.internal", 30, "10.1.0.1"),
            ip("APP.internal", 20, "10.1.0.2"),
        ]),
        _ => records(vec![ip("app.internal", 60, "2001:db8::1")]),
    })
}

/// A and AAAA are asked for and found together; the shortest TTL holds.
#[test]
fn addresses_of_both_families() {
    let (outcome, log) = look(&addresses(AddressFamily::Both), 2, both);
    let expected = [("10.1.0.1:0", 1), ("10.1.0.2:0", 1), ("[2001:db8::1]:0", 1)];
    assert_eq!(found(&outcome), expected.map(|(a, w)| (a.to_owned(), w)));
    assert_eq!(
        (outcome.ttl, outcome.fault, outcome.server),
        (Some(20), None, Some(server(1)))
    );
    let kinds: Vec<Rtype> = log.iter().map(|(_, _, _, kind)| *kind).collect();
    assert_eq!(kinds, [Rtype::A, Rtype::AAAA]);
    let (outcome, log) = look(&addresses(AddressFamily::V6), 2, both);
    assert_eq!((outcome.found.len(), log.len()), (1, 1));
}

/// No such name, and a name without such records: both are answers, with the TTL of their SOA.
#[test]
fn nothing_is_an_answer() {
    for rcode in [Rcode::NXDOMAIN, Rcode::NOERROR] {
        let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |_| {
            Does::Answers(nothing(rcode, 9))
        });
        assert!(outcome.found.is_empty());
        assert_eq!((outcome.ttl, outcome.fault), (Some(9), None));
    }
}

/// A server that cannot say, or is silent, is followed by the next one, which is asked first from then on.
#[test]
fn the_next_server_is_asked() {
    for why in [Failure::TimedOut, Failure::Unreachable("refused".into())] {
        let (outcome, log) = look(&addresses(AddressFamily::Both), 2, |exchange| {
            match exchange.server == server(1) {
                true => Does::Fails(why.clone()),
                false => both(exchange),
            }
        });
        assert_eq!((outcome.found.len(), outcome.fault), (3, None));
        let servers: Vec<SocketAddr> = log.iter().map(|(server, ..)| *server).collect();
        assert_eq!(servers, [server(1), server(2), server(2)]);
    }
    let (outcome, _) = look(&addresses(AddressFamily::V4), 2, |exchange| {
        match exchange.server == server(1) {
            true => Does::Answers(nothing(Rcode::SERVFAIL, 1)),
            false => both(exchange),
        }
    });
    assert_eq!(outcome.fault, None);
}

/// When nobody answers, the look ends with the first question; when a server only cannot say, the others are asked too.
#[test]
fn what_is_not_answered_is_said() {
    let (outcome, log) = look(&addresses(AddressFamily::Both), 2, |_| {
        Does::Fails(Failure::TimedOut)
    });
    assert_eq!(log.len(), 3);
    assert_eq!(
        outcome.fault.unwrap(),
        "A of app.internal: 10.0.0.1:53 does not answer"
    );
    assert_eq!(outcome.server, None);
    let (outcome, log) = look(&addresses(AddressFamily::Both), 1, |exchange| {
        match asked(&exchange.message).1 {
            Rtype::A => both(exchange),
            _ => Does::Answers(nothing(Rcode::SERVFAIL, 1)),
        }
    });
    assert_eq!(log.len(), 4);
    assert_eq!(outcome.found.len(), 2);
    assert_eq!(
        outcome.fault.unwrap(),
        "AAAA of app.internal: 10.0.0.1:53 answered SERVFAIL"
    );
    let mut lookup = Lookup::new(&addresses(AddressFamily::Both), Vec::new(), None, 0);
    assert_eq!(lookup.next(0, 0), None);
    assert_eq!(lookup.outcome().fault.unwrap(), "there is no server to ask");
}

/// Messages that do not fit the question (another number, name or type, no answer at all, no message at all) are passed
/// over; the right one after them is taken.
#[test]
fn strangers_are_passed_over() {
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |exchange| {
        let query = &exchange.message;
        let evil = |other: Vec<u8>| write(&other, &records(vec![ip("app.internal", 60, "6.6.6.6")]));
        let mut other_number = query.clone();
        other_number[1] ^= 1;
        let mut other_name = query.clone();
        other_name[13] = b'b';
        let mut other_kind = query.clone();
        let end_of_name = 12 + "app.internal".len() + 2;
        other_kind[end_of_name + 1] = 28;
        let right = write(query, &records(vec![ip("app.internal", 60, "10.1.0.1")]));
        Does::Sends(vec![
            evil(other_number),
            evil(other_name),
            evil(other_kind),
            query.clone(),
            vec![1, 2, 3],
            right,
        ])
    });
    assert_eq!(found(&outcome), [("10.1.0.1:0".to_owned(), 1)]);
    assert_eq!((outcome.strangers, log.len()), (5, 1));
}

/// A flood of them leads to TCP, where nobody else can send.
#[test]
fn a_flood_leads_to_tcp() {
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |exchange| {
        match exchange.transport {
            Transport::Udp => Does::Sends(vec![vec![0; 40]; 100]),
            Transport::Tcp => both(exchange),
        }
    });
    assert_eq!((outcome.found.len(), outcome.fault, log.len()), (2, None, 2));
    assert_eq!(outcome.strangers, 8);
    let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |_| {
        Does::Sends(vec![vec![0; 40]; 100])
    });
    assert!(
        outcome
            .fault
            .unwrap()
            .ends_with("answers something else than it is asked")
    );
}

/// What does not fit into a datagram is asked for over TCP; there it must be whole.
#[test]
fn what_is_cut_is_asked_over_tcp() {
    let cut = || Answer {
        truncated: true,
        ..records(vec![ip("app.internal", 30, "10.1.0.9")])
    };
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |exchange| {
        match exchange.transport {
            Transport::Udp => Does::Answers(cut()),
            Transport::Tcp => both(exchange),
        }
    });
    assert_eq!(outcome.found.len(), 2);
    let ways: Vec<Transport> = log.iter().map(|(_, way, ..)| *way).collect();
    assert_eq!(ways, [Transport::Udp, Transport::Tcp]);
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |_| Does::Answers(cut()));
    assert!(
        outcome
            .fault
            .unwrap()
            .contains("cuts its answer short even over TCP")
    );
    assert_eq!(log.len(), 6);
}

/// An alias is followed within an answer, and by another question where the answer ends with it.
#[test]
fn aliases_are_followed() {
    let alias = |to| ("app.internal", 60, Data::Cname(to));
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |_| {
        Does::Answers(records(vec![
            ip("b.internal", 30, "10.1.0.1"),
            ("c.internal", 10, Data::Cname("b.internal")),
            alias("c.internal"),
            ip("stranger.internal", 30, "6.6.6.6"),
        ]))
    });
    assert_eq!((found(&outcome).len(), log.len(), outcome.ttl), (1, 1, Some(10)));
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |exchange| {
        Does::Answers(match asked(&exchange.message).0.as_str() {
            "app.internal" => records(vec![alias("b.internal")]),
            _ => records(vec![ip("b.internal", 30, "10.1.0.1")]),
        })
    });
    assert_eq!(found(&outcome), [("10.1.0.1:0".to_owned(), 1)]);
    assert_eq!(log[1].2, "b.internal");
    // The alias leads to nothing: an answer.
    let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |_| {
        Does::Answers(Answer {
            answer: vec![alias("b.internal")],
            ..nothing(Rcode::NXDOMAIN, 7)
        })
    });
    assert_eq!(
        (outcome.found.len(), outcome.fault, outcome.ttl),
        (0, None, Some(7))
    );
}

/// Aliases that go round in a circle, in one answer or over several, end.
#[test]
fn aliases_in_a_circle_end() {
    let circle = vec![
        ("app.internal", 60, Data::Cname("b.internal")),
        ("b.internal", 60, Data::Cname("app.internal")),
    ];
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |_| {
        Does::Answers(records(circle.clone()))
    });
    assert!(
        outcome
            .fault
            .unwrap()
            .ends_with("aliases (CNAME) that go round in a circle")
    );
    assert_eq!(log.len(), 3);
    let (outcome, log) = look(&addresses(AddressFamily::V4), 1, |exchange| {
        let record = match asked(&exchange.message).0.as_str() {
            "app.internal" => circle[0].clone(),
            _ => circle[1].clone(),
        };
        Does::Answers(records(vec![record]))
    });
    assert!(outcome.fault.unwrap().ends_with("more than 8 aliases (CNAME)"));
    assert_eq!(log.len(), 9);
}

/// A server that only names other servers is no resolver: nothing may be concluded from its empty answer.
#[test]
fn a_referral_is_no_answer() {
    let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |_| {
        Does::Answers(Answer {
            referral: true,
            ..Answer::default()
        })
    });
    assert!(outcome.fault.unwrap().ends_with("it is no resolver"));
}

/// Services: those of the first priority, with their ports and weights; addresses that came along are not asked for.
#[test]
fn services_have_ports_and_weights() {
    let (outcome, log) = look(&settings(DnsRecords::Srv), 1, |exchange| {
        let (name, kind, _) = asked(&exchange.message);
        let srv =
            |priority, weight, port, target| ("app.internal", 60, Data::Srv(priority, weight, port, target));
        Does::Answers(match (name.as_str(), kind) {
            ("app.internal", _) => Answer {
                answer: vec![
                    srv(10, 5, 8080, "one.internal"),
                    srv(10, 7, 8081, "one.internal"),
                    srv(10, 0, 8080, "two.internal"),
                    srv(20, 9, 8080, "three.internal"),
                    srv(10, 1, 0, "one.internal"),
                ],
                additional: vec![
                    ip("ONE.internal", 30, "10.1.0.1"),
                    ip("three.internal", 1, "10.1.0.3"),
                ],
                ..Answer::default()
            },
            ("two.internal", Rtype::A) => records(vec![ip("two.internal", 60, "10.1.0.2")]),
            ("two.internal", _) => records(vec![ip("two.internal", 60, "2001:db8::2")]),
            _ => nothing(Rcode::NOERROR, 60),
        })
    });
    let expected = [
        ("10.1.0.1:8080", 5),
        ("10.1.0.1:8081", 7),
        ("10.1.0.2:8080", 0),
        ("[2001:db8::2]:8080", 0),
    ];
    assert_eq!(found(&outcome), expected.map(|(a, w)| (a.to_owned(), w)));
    assert_eq!(
        (outcome.left_out, outcome.ttl, outcome.fault),
        (1, Some(30), None)
    );
    let asked: Vec<String> = log
        .iter()
        .map(|(_, _, name, kind)| format!("{name} {kind}"))
        .collect();
    assert_eq!(
        asked,
        [
            "app.internal SRV",
            "one.internal AAAA",
            "two.internal A",
            "two.internal AAAA"
        ]
    );
}

/// A server whose zone is silent, after the services were told: those behind it are asked for all the same, and the
/// look says that it does not know all.
#[test]
fn a_silent_zone_hides_no_other() {
    for why in [Failure::TimedOut, Failure::Unreachable("refused".into())] {
        let (outcome, log) = look(&settings(DnsRecords::Srv), 2, |exchange| {
            let (name, kind, _) = asked(&exchange.message);
            let srv = |target| ("app.internal", 60, Data::Srv(0, 1, 80, target));
            Does::Answers(match (name.as_str(), kind) {
                ("app.internal", _) => records(vec![srv("a.internal"), srv("b.internal"), srv("c.internal")]),
                ("a.internal", Rtype::A) => records(vec![ip("a.internal", 60, "10.1.0.1")]),
                ("c.internal", Rtype::A) => records(vec![ip("c.internal", 60, "10.1.0.3")]),
                ("b.internal", _) => return Does::Fails(why.clone()),
                _ => nothing(Rcode::NOERROR, 60),
            })
        });
        assert_eq!(
            found(&outcome),
            ["10.1.0.1:80", "10.1.0.3:80"].map(|address| (address.to_owned(), 1))
        );
        let fault = outcome.fault.unwrap();
        assert!(fault.starts_with("A of b.internal: 10.0.0.1:53 "), "{fault}");
        // One question for the services, two for each server, and three tries of the silent one's address.
        assert_eq!(log.len(), 1 + 2 + 3 + 2);
        let aaaa_of_b = |(_, _, name, kind): &(_, _, String, _)| name == "b.internal" && *kind == Rtype::AAAA;
        assert!(!log.iter().any(aaaa_of_b), "who is silent about A is about AAAA");
    }
}

/// The root as the target says that there is no such service.
#[test]
fn a_service_that_is_not_offered() {
    let (outcome, log) = look(&settings(DnsRecords::Srv), 1, |_| {
        Does::Answers(records(vec![("app.internal", 60, Data::Srv(0, 0, 0, "."))]))
    });
    assert_eq!((outcome.found.len(), outcome.fault, log.len()), (0, None, 1));
}

/// Addresses of nobody are left out; so are servers beyond the bound.
#[test]
fn what_cannot_be_is_left_out() {
    let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |_| {
        Does::Answers(records(vec![
            ip("app.internal", 60, "0.0.0.0"),
            ip("app.internal", 60, "224.0.0.1"),
            ip("app.internal", 60, "10.1.0.1"),
        ]))
    });
    assert_eq!((outcome.found.len(), outcome.left_out), (1, 2));
    let (outcome, _) = look(&addresses(AddressFamily::V6), 1, |_| {
        Does::Answers(records(vec![
            ip("app.internal", 60, "::ffff:10.1.0.1"),
            ip("app.internal", 60, "2001:db8::1"),
        ]))
    });
    assert_eq!((outcome.found.len(), outcome.left_out), (1, 1));
    let names: Vec<&'static str> = (0..1000)
        .map(|n| &*Box::leak(format!("s{n}.internal").into_boxed_str()))
        .collect();
    let (outcome, log) = look(&settings(DnsRecords::Srv), 1, |exchange| {
        match asked(&exchange.message).1 {
            Rtype::SRV => {
                let all = names
                    .iter()
                    .map(|name| ("app.internal", 60, Data::Srv(0, 1, 80, name)));
                Does::Answers(records(all.collect()))
            }
            _ => Does::Answers(nothing(Rcode::NOERROR, 60)),
        }
    });
    assert_eq!(log.len(), MAX_QUESTIONS);
    assert_eq!(outcome.left_out, 2000 - (MAX_QUESTIONS - 1));
    assert_eq!(outcome.unasked.len(), outcome.left_out);
}

/// Damaged answers to the right question (cut, with pointers that go round in a circle, with counts that are wrong) are
/// failures, never a panic.
#[test]
fn damaged_answers_are_failures() {
    let whole = |exchange: &Exchange| {
        write(
            &exchange.message,
            &records(vec![
                ("app.internal", 60, Data::Cname("b.internal")),
                ip("b.internal", 60, "10.1.0.1"),
            ]),
        )
    };
    let question = 12 + "app.internal".len() + 2 + 4;
    let mut failures = 0;
    for cut in question..200 {
        let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |exchange| {
            let message = whole(exchange);
            Does::Sends(vec![message[..cut.min(message.len())].to_vec()])
        });
        failures += u32::from(outcome.fault.is_some_and(|why| why.contains("damaged message")));
    }
    assert!(failures > 40, "{failures}");
    for (first, second) in [(0xc0, question as u8), (0xc0, 0xff), (0x40, 0), (0xff, 0xff)] {
        let (outcome, _) = look(&addresses(AddressFamily::V4), 1, |exchange| {
            let mut message = whole(exchange);
            message[question] = first;
            message[question + 1] = second;
            Does::Sends(vec![message])
        });
        assert!(outcome.fault.is_some_and(|why| why.contains("damaged message")));
    }
}

/// A look ends in time even when every server takes nearly as long as it may.
#[test]
fn a_look_ends_in_time() {
    let mut settings = addresses(AddressFamily::Both);
    settings.timeout = std::time::Duration::from_secs(29);
    settings.attempts = 10;
    let mut lookup = Lookup::new(&settings, vec![address("10.0.0.1:53")], None, 0);
    let mut now = 0;
    while let Some(exchange) = lookup.next(now, 1) {
        now += exchange.timeout_ms;
        lookup.failed(Failure::TimedOut);
    }
    assert_eq!(now, 30_000);
    assert_eq!(
        lookup.outcome().fault.unwrap(),
        "not every question was answered within 30 s"
    );
}
