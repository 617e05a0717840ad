//! The forms that a text may have to have: addresses, hosts, paths, names of header fields. Each returns the
//! value, or what is wrong with the text.

use std::net::{IpAddr, SocketAddr};

use super::section::cut;
use crate::config::{HashKey, IpNet, LimitKey, Name, Secret, TOKEN_PREFIX, TokenHash};
use crate::diagnostic::Fault;

pub(super) fn name(text: &str) -> Result<Name, Fault> {
    Name::parse(text).map_err(|_| name_fault(text))
}

pub(super) fn name_fault(text: &str) -> Fault {
    Fault::new(format!(
        "`{}` is not a name: use 1 to 63 letters, digits, `_`, `-` or `.`",
        cut(text)
    ))
}

/// Free text on one line.
pub(super) fn words(text: &str) -> Result<String, Fault> {
    bounded(text, 1024)?;
    Ok(text.to_owned())
}

/// A path of the file system.
pub(super) fn file(text: &str) -> Result<String, Fault> {
    bounded(text, 4096)?;
    Ok(text.to_owned())
}

pub(super) fn bounded(text: &str, most: usize) -> Result<(), Fault> {
    let length = text.chars().take(most + 1).count();
    if length == 0 || length > most {
        return Err(Fault::new(format!("the text must have 1 to {most} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err(Fault::new(
            "the text may not have control characters such as line breaks",
        ));
    }
    Ok(())
}

/// The name of a user or group.
pub(super) fn account(text: &str) -> Result<String, Fault> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let fits = (1..=32).contains(&text.len())
        && text.bytes().next().is_some_and(plain)
        && text.bytes().all(|b| plain(b) || b == b'.' || b == b'-');
    if fits {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(format!(
            "`{}` is not the name of a user or group",
            cut(text)
        )))
    }
}

/// A bearer token. What is wrong is said without saying the token.
pub(super) fn token(text: &str) -> Result<String, Fault> {
    if (1..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(Fault::new(
            "a token is 1 to 1024 visible ASCII characters without spaces",
        ))
    }
}

/// The hash of a token. What is wrong is said without saying the text: it may be the token.
pub(super) fn token_hash(text: &str) -> Result<TokenHash, Fault> {
    TokenHash::parse(text).ok_or_else(|| match text.starts_with(TOKEN_PREFIX) {
        true => Fault::new("this is a token, not its hash").suggest(
            "take the `hash` that `evenkeel token create` prints, of a new token: this one has been written down",
        ),
        false => Fault::new("a hash is `sha256:` and 64 hexadecimal digits in lower case")
            .suggest("take it from `evenkeel token create`"),
    })
}

/// Text in PEM. What is wrong is said without saying the text: it may be a key.
pub(super) fn pem(text: &str) -> Result<String, Fault> {
    const MOST: usize = 1024 * 1024;
    if text.len() > MOST || !text.contains("-----BEGIN ") || !text.contains("-----END ") {
        return Err(
            Fault::new("this is not PEM, which goes from `-----BEGIN …` to `-----END …`")
                .suggest("to name a file, use the key without `_pem`"),
        );
    }
    Ok(text.to_owned())
}

/// An address to listen on; port 0 is allowed.
pub(super) fn listen_address(text: &str) -> Result<SocketAddr, Fault> {
    text.parse().map_err(|_| address_fault(text, "0.0.0.0"))
}

/// Stands for a backend in what is said of addresses.
const BACKEND: &str = "10.0.0.1";

/// The address of a backend.
pub(super) fn backend_address(text: &str) -> Result<SocketAddr, Fault> {
    let address: SocketAddr = text.parse().map_err(|_| address_fault(text, BACKEND))?;
    if address.port() == 0 {
        return Err(Fault::new(format!(
            "`{text}` has port 0, on which nothing can be reached"
        )));
    }
    if address.ip().is_unspecified() {
        return Err(Fault::new(format!("`{text}` is no address of a server"))
            .suggest(format!("for this machine write `127.0.0.1:{}`", address.port())));
    }
    Ok(address)
}

/// Why a text is not an address and port: the common slips by name.
fn address_fault(text: &str, stand_in: &str) -> Fault {
    let shown = cut(text);
    let fault = Fault::new(format!("`{shown}` is not an IP address and port"));
    if text.parse::<IpAddr>().is_ok() {
        let example = if text.contains(':') {
            format!("[{text}]:8080")
        } else {
            format!("{text}:8080")
        };
        return fault.suggest(format!("add the port: `{example}`"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.split('/').next().unwrap_or(rest);
        return fault.suggest(format!(
            "leave out `{}://` and any path: `{}`",
            cut(scheme),
            cut(rest)
        ));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match text.parse::<u16>() {
            Ok(port) => fault.suggest(format!("write the address too: `{stand_in}:{port}`")),
            Err(_) => fault.suggest(format!("write it as `{stand_in}:8080`")),
        };
    };
    let Ok(port) = port.parse::<u16>() else {
        return fault.suggest("a port is a number from 0 to 65535");
    };
    if host.is_empty() || host == "*" {
        return fault.suggest(format!("write the address too: `{stand_in}:{port}`"));
    }
    if host.contains(':') && !host.starts_with('[') && host.parse::<IpAddr>().is_ok() {
        return fault.suggest(format!("put the IPv6 address in brackets: `[{host}]:{port}`"));
    }
    if host == "localhost" {
        return fault.suggest(format!("write `127.0.0.1:{port}`"));
    }
    let is_host = host_characters(host) && host.bytes().any(|b| b.is_ascii_alphabetic());
    if is_host {
        let more = match stand_in {
            BACKEND => "; members that have a name stand in `discovery.dns` of the pool",
            _ => "",
        };
        return Fault::new(format!(
            "`{shown}` names a host, but an IP address and port is needed"
        ))
        .suggest(format!(
            "names are not looked up here: write the address itself, as in `{stand_in}:{port}`{more}"
        ));
    }
    fault.suggest(format!("write it as `{stand_in}:{port}`"))
}

/// An IP network, or an address as a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let wrong = || {
        Fault::new(format!("`{}` is not an IP network", cut(text)))
            .suggest("write it as `10.0.0.0/8` or `10.0.0.1`")
    };
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => {
            let digits = prefix.len() <= 3 && prefix.bytes().all(|b| b.is_ascii_digit());
            (
                address,
                Some(prefix.parse::<u8>().ok().filter(|_| digits).ok_or_else(wrong)?),
            )
        }
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let net = IpNet::new(address, prefix.unwrap_or(whole)).ok_or_else(|| {
        Fault::new(format!(
            "`{}` has too long a prefix: at most {whole} bits",
            cut(text)
        ))
        .suggest(format!("write `{address}` for this address alone"))
    })?;
    if net.address != address {
        return Err(
            Fault::new(format!("`{}` has bits set beyond its prefix", cut(text)))
                .suggest(format!("the network is `{net}`")),
        );
    }
    Ok(net)
}

fn host_characters(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

pub(super) fn is_host(text: &str) -> bool {
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host_characters(text),
    }
}

/// A host name, in lower case.
pub(super) fn host(text: &str) -> Result<String, Fault> {
    if is_host(text) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Fault::new(format!("`{}` is not a host name", cut(text))))
}

/// A DNS name of a certificate, lower case, without a wildcard.
pub(super) fn domain(text: &str) -> Result<String, Fault> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err(Fault::new(format!("`{text}` is an IP address, not a DNS name")));
    }
    if text.len() <= 253 && text.split('.').all(label) {
        return Ok(text.to_ascii_lowercase());
    }
    let fault = Fault::new(format!("`{}` is not a DNS name", cut(text)));
    Err(if text.starts_with("*.") {
        fault.suggest("wildcards need a challenge over DNS, which is not supported: name each host")
    } else {
        fault
    })
}

/// URL of an ACME directory.
pub(super) fn directory_url(text: &str) -> Result<String, Fault> {
    let visible = text.len() <= 1024 && text.bytes().all(|b| b.is_ascii_graphic());
    if visible && text.strip_prefix("https://").is_some_and(|rest| !rest.is_empty()) {
        return Ok(text.to_owned());
    }
    Err(Fault::new(format!("`{}` is not an `https://` URL", cut(text))))
}

/// What a check sends as `Host`: a host with or without a port.
pub(super) fn host_field(text: &str) -> Result<String, Fault> {
    let wrong = || Fault::new(format!("`{}` is not a host, with or without a port", cut(text)));
    if is_host(text) || host_and_port(text) {
        Ok(text.to_owned())
    } else {
        Err(wrong())
    }
}

/// Whether a text is a host with a port.
pub(super) fn host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let digits = port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit());
    is_host(host) && digits && port.parse::<u16>().is_ok()
}

/// The path of a route, compared with the path of a request after normalisation.
pub(super) fn route_path(text: &str) -> Result<String, Fault> {
    if text.contains('?') {
        return Err(Fault::new(format!(
            "`{}` has a query, but only the path is compared",
            cut(text)
        ))
        .suggest("leave out `?` and what follows; parameters are matched by `query`"));
    }
    let path = check_path(text)?;
    let dotted = path.split('/').any(|segment| segment == "." || segment == "..");
    if dotted {
        return Err(Fault::new(format!(
            "`{}` can match no request: dot segments are resolved before paths are compared",
            cut(text)
        )));
    }
    Ok(path)
}

/// Path, and query if there is one, of a request that a check sends.
pub(super) fn check_path(text: &str) -> Result<String, Fault> {
    let shown = cut(text);
    if text.is_empty() || text.len() > 1024 {
        return Err(Fault::new("a path has 1 to 1024 characters"));
    }
    if text.contains("://") && !text.starts_with('/') {
        return Err(Fault::new(format!(
            "`{shown}` is a whole address, but only the path is needed"
        ))
        .suggest("write it as `/health`"));
    }
    if !text.starts_with('/') {
        return Err(
            Fault::new(format!("`{shown}` does not start with `/`")).suggest(format!("write `/{shown}`"))
        );
    }
    if text.bytes().any(|b| !b.is_ascii_graphic() || b == b'#') {
        return Err(
            Fault::new(format!("`{shown}` has a character that a path may not have")).suggest(
                "write other than visible ASCII characters, and `#`, in percent coding such as `%20`",
            ),
        );
    }
    Ok(text.to_owned())
}

/// What `consistent_hash` hashes.
pub(super) fn hash_key(text: &str) -> Result<HashKey, Fault> {
    match text {
        "client_address" => return Ok(HashKey::ClientAddress),
        "path" => return Ok(HashKey::Path),
        _ => {}
    }
    let wrong = || {
        Fault::new(format!("`{}` is not a key to hash", cut(text)))
            .suggest("write `client_address`, `path`, `header:NAME`, `cookie:NAME` or `query:NAME`")
    };
    let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
    let parameter = |b: u8| b.is_ascii_graphic() && !matches!(b, b'&' | b'=' | b'#');
    match kind {
        "header" => field_name(name).map(|name| HashKey::Header(name.to_ascii_lowercase())),
        "cookie" => cookie_name(name).map(HashKey::Cookie),
        "query" if (1..=128).contains(&name.len()) && name.bytes().all(parameter) => {
            Ok(HashKey::Query(name.to_owned()))
        }
        "query" => Err(Fault::new(format!(
            "`{}` is not the name of a query parameter",
            cut(name)
        ))),
        _ => Err(wrong()),
    }
}

/// The name of a cookie: a token (RFC 6265 section 4.1.1).
pub(super) fn cookie_name(text: &str) -> Result<String, Fault> {
    field_name(text).map_err(|_| Fault::new(format!("`{}` is not the name of a cookie", cut(text))))
}

/// What a rate limit counts by.
pub(super) fn limit_key(text: &str) -> Result<LimitKey, Fault> {
    match (text, text.split_once(':')) {
        ("client_address", _) => Ok(LimitKey::ClientAddress),
        ("route", _) => Ok(LimitKey::Route),
        (_, Some(("header", name))) => {
            field_name(name).map(|name| LimitKey::Header(name.to_ascii_lowercase()))
        }
        (_, Some(("cookie", name))) => cookie_name(name).map(LimitKey::Cookie),
        _ => Err(Fault::new(format!("`{}` is nothing to count by", cut(text)))
            .suggest("write `client_address`, `header:NAME`, `cookie:NAME` or `route`")),
    }
}

/// A status that tells of a failure, or a class of them.
pub(super) fn failing_status(text: &str) -> Result<(u16, u16), Fault> {
    let status = || {
        text.parse()
            .ok()
            .filter(|n| text.len() == 3 && (400..=599).contains(n))
    };
    match (text, status()) {
        ("4xx", _) => Ok((400, 499)),
        ("5xx", _) => Ok((500, 599)),
        (_, Some(status)) => Ok((status, status)),
        _ => Err(
            Fault::new(format!("`{}` is no failure to try elsewhere", cut(text)))
                .suggest("write `connect`, `reset`, `timeout`, a status from 400 to 599, or `5xx`"),
        ),
    }
}

/// What something is signed with. What is wrong is said without saying the secret.
pub(super) fn secret(text: &str) -> Result<Secret, Fault> {
    if (16..=1024).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(Secret::new(text.to_owned()))
    } else {
        Err(
            Fault::new("a secret is 16 to 1024 visible ASCII characters without spaces")
                .suggest("take random ones, as `openssl rand -base64 32` prints them"),
        )
    }
}

/// A language tag (RFC 5646 in outline), in lower case.
pub(super) fn language(text: &str) -> Result<String, Fault> {
    let subtag =
        |part: &str| (1..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let primary = text.split('-').next().unwrap_or("");
    let fits = text.split('-').count() <= 8
        && text.split('-').all(subtag)
        && primary.bytes().all(|b| b.is_ascii_alphabetic());
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Fault::new(format!("`{}` is not a language tag", cut(text)))
            .suggest("write it as `de` or `pt-BR`"))
    }
}

/// The name of a header field: a token (RFC 9110 section 5.1).
pub(super) fn field_name(text: &str) -> Result<String, Fault> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if (1..=128).contains(&text.len()) && text.bytes().all(token) {
        Ok(text.to_owned())
    } else {
        Err(
            Fault::new(format!("`{}` is not the name of a header field", cut(text)))
                .suggest("it has letters, digits and `-`, as in `X-Request-Id`"),
        )
    }
}

/// A protocol to switch to (RFC 9110 section 7.8), lower case. HTTP has its own ways.
pub(super) fn protocol(text: &str) -> Result<String, Fault> {
    let token = |part: &str| part.len() <= 64 && field_name(part).is_ok();
    let (name, version) = text.split_once('/').map_or((text, None), |(n, v)| (n, Some(v)));
    let known = text.to_ascii_lowercase();
    if ["h2c", "h2", "http"].contains(&name.to_ascii_lowercase().as_str()) {
        return Err(Fault::new(format!(
            "`{known}` is HTTP itself, which is not reached by `Upgrade`"
        )));
    }
    if token(name) && version.is_none_or(token) {
        Ok(known)
    } else {
        Err(Fault::new(format!(
            "`{}` is not the name of a protocol",
            cut(text)
        )))
    }
}

/// The value of a header field (RFC 9110 section 5.5), of ASCII only.
pub(super) fn field_value(text: &str) -> Result<String, Fault> {
    let inner = |b: u8| b.is_ascii_graphic() || b == b' ' || b == b'\t';
    let fits = (1..=1024).contains(&text.len()) && text.bytes().all(inner) && text.trim_ascii() == text;
    if fits {
        Ok(text.to_owned())
    } else {
        Err(
            Fault::new(format!("`{}` is not the value of a header field", cut(text)))
                .suggest("use 1 to 1024 visible ASCII characters; spaces only between them"),
        )
    }
}

/// A status or a range of them.
pub(super) fn status_range(text: &str) -> Result<(u16, u16), Fault> {
    let wrong =
        || Fault::new(format!("`{}` is not a range of statuses", cut(text))).suggest("write it as `200-299`");
    let status = |part: &str| {
        let three = part.len() == 3 && part.bytes().all(|b| b.is_ascii_digit());
        let number: u16 = part.parse().ok().filter(|_| three).ok_or_else(wrong)?;
        (100..=599).contains(&number).then_some(number).ok_or_else(wrong)
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (status(first)?, status(last)?),
        None => (status(text)?, status(text)?),
    };
    if first > last {
        return Err(
            Fault::new(format!("`{text}` ends before it starts")).suggest(format!("write `{last}-{first}`"))
        );
    }
    Ok((first, last))
}
