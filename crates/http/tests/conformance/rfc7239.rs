//! RFC 7239 and its older relatives: what is said about the client, and who is believed.

use super::*;
use evenkeel_http::forward::client_address;
use model::config::IpNet;
use std::net::IpAddr;

const CLAIMS: &str = "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n\
    X-Forwarded-Port: 443\r\nX-Real-IP: 198.51.100.1\r\nForwarded: for=198.51.100.1\r\nClient-Cert: :MII:\r\n\
    X-SSL-Client-Verify: SUCCESS\r\nX-Forwarded-Client-Cert: Hash=1\r\n";

#[test]
fn what_a_stranger_claims_is_removed() {
    let sent = accepted(with_fields("GET", CLAIMS)).forwarded();
    assert_eq!(
        sent,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n\
         Forwarded: for=192.0.2.7;proto=http;host=a\r\n\r\n"
    );
}

#[test]
fn what_a_trusted_proxy_says_is_kept_and_added_to() {
    let sent = accepted(with_fields("GET", CLAIMS)).forwarded_via(&via("10.0.0.1", true));
    assert_eq!(
        sent,
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Port: 443\r\nX-Real-IP: 198.51.100.1\r\nClient-Cert: :MII:\r\n\
         X-SSL-Client-Verify: SUCCESS\r\nX-Forwarded-Client-Cert: Hash=1\r\n\
         X-Forwarded-For: 198.51.100.1, 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop\r\n\
         Forwarded: for=198.51.100.1, for=10.0.0.1;proto=http;host=a\r\n\r\n"
    );
}

#[test]
fn several_lines_become_one_list_in_order() {
    let fields = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-For:\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\n";
    let sent = accepted(with_fields("GET", fields)).forwarded_via(&via("10.0.0.1", true));
    assert!(
        sent.contains("\r\nX-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1\r\n"),
        "{sent}"
    );
    assert_eq!(sent.matches("X-Forwarded-For").count(), 1);
    assert!(sent.contains("\r\nX-Forwarded-Proto: https\r\n"), "{sent}");
}

#[test]
fn an_ipv6_address_and_a_port_are_quoted() {
    let request = accepted("GET / HTTP/1.1\r\nHost: [2001:db8::9]:80\r\n\r\n");
    let sent = request.forwarded_via(&via("2001:db8::1", false));
    assert!(sent.contains("\r\nX-Forwarded-For: 2001:db8::1\r\n"), "{sent}");
    assert!(
        sent.contains("\r\nForwarded: for=\"[2001:db8::1]\";proto=http;host=\"[2001:db8::9]:80\"\r\n"),
        "{sent}"
    );
}

#[test]
fn aliases_with_underscores_reach_nobody_even_from_a_trusted_proxy() {
    let request = accepted(with_fields(
        "GET",
        "X_Forwarded_For: 6.6.6.6\r\nX-Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\n",
    ));
    assert!(!request.forwarded_via(&via("10.0.0.1", true)).contains("6.6.6.6"));
}

fn client(forwarded_for: &[&str], peer: &str) -> String {
    let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|net| {
        let (address, prefix) = net.split_once('/').unwrap();
        IpNet::new(address.parse().unwrap(), prefix.parse().unwrap()).unwrap()
    });
    let fields: String = forwarded_for
        .iter()
        .map(|value| format!("X-Forwarded-For: {value}\r\n"))
        .collect();
    let request = accepted(with_fields("GET", &fields));
    let peer: IpAddr = peer.parse().unwrap();
    client_address(&request.buf, &request.head, peer, &trusted).to_string()
}

#[test]
fn a_stranger_is_its_own_address_whatever_it_claims() {
    assert_eq!(client(&["1.1.1.1"], "192.0.2.7"), "192.0.2.7");
    assert_eq!(client(&["10.0.0.9, 1.1.1.1"], "192.0.2.7"), "192.0.2.7");
}

#[test]
fn behind_trusted_proxies_hops_are_counted_from_the_right() {
    assert_eq!(client(&[], "10.0.0.1"), "10.0.0.1");
    assert_eq!(client(&["1.1.1.1"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["1.1.1.1, 10.0.0.2"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["1.1.1.1, 10.0.0.3, 10.0.0.2"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["10.0.0.3, 10.0.0.2"], "10.0.0.1"), "10.0.0.3");
}

#[test]
fn what_a_client_put_before_the_first_trusted_hop_is_not_believed() {
    assert_eq!(client(&["6.6.6.6, 1.1.1.1"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["10.9.9.9, 1.1.1.1, 10.0.0.2"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["10.9.9.9, 10.8.8.8, 1.1.1.1"], "10.0.0.1"), "1.1.1.1");
}

#[test]
fn several_lines_count_as_one_list() {
    assert_eq!(client(&["6.6.6.6", "1.1.1.1, 10.0.0.2"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["1.1.1.1", "10.0.0.2"], "10.0.0.1"), "1.1.1.1");
}

#[test]
fn an_entry_that_is_no_address_ends_the_walk() {
    for junk in ["unknown", "", "1.1.1", "_hidden", "1.1.1.1 2.2.2.2", "\u{e4}"] {
        assert_eq!(
            client(&[&format!("6.6.6.6, {junk}, 10.0.0.2")], "10.0.0.1"),
            "10.0.0.2",
            "{junk:?}"
        );
    }
}

#[test]
fn entries_may_have_ports_and_brackets() {
    assert_eq!(client(&["1.1.1.1:4711"], "10.0.0.1"), "1.1.1.1");
    assert_eq!(client(&["[2001:db9::1]:80"], "10.0.0.1"), "2001:db9::1");
    assert_eq!(client(&["[2001:db9::1]"], "10.0.0.1"), "2001:db9::1");
    assert_eq!(client(&["2001:db9::1, 2001:db8::2"], "10.0.0.1"), "2001:db9::1");
    assert_eq!(
        client(&["1.1.1.1, ::ffff:10.0.0.2"], "::ffff:10.0.0.1"),
        "1.1.1.1"
    );
}
