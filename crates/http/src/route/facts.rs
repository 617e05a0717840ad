//! What routing may ask about a request; what costs something is found out when a rule first asks.

use std::cell::OnceCell;
use std::net::IpAddr;

use model::config::IpNet;
use model::geography::Geography;

use crate::message::{Field, FieldKind};
use crate::syntax::trim;
use crate::{RequestHead, forward};

/// A request as routing sees it.
pub struct Facts<'a> {
    head: &'a RequestHead,
    bytes: &'a [u8],
    peer: IpAddr,
    trusted_proxies: &'a [IpNet],
    look_up: &'a dyn Fn(IpAddr) -> Geography,
    client: OnceCell<IpAddr>,
    geography: OnceCell<Geography>,
    pub(super) language: OnceCell<Option<usize>>,
}

impl<'a> Facts<'a> {
    /// The facts of `head`, parsed from `bytes`, which came from `peer`. `look_up` tells where an address is; it is
    /// called once at most.
    pub fn new(
        head: &'a RequestHead,
        bytes: &'a [u8],
        peer: IpAddr,
        trusted_proxies: &'a [IpNet],
        look_up: &'a dyn Fn(IpAddr) -> Geography,
    ) -> Self {
        Self {
            head,
            bytes,
            peer,
            trusted_proxies,
            look_up,
            client: OnceCell::new(),
            geography: OnceCell::new(),
            language: OnceCell::new(),
        }
    }

    /// Host without port and without a final dot, in whatever case it came.
    pub(super) fn host(&self) -> &'a [u8] {
        let host = self.head.host_name(self.bytes);
        // The final dot names the root of the domain system: the same host without it.
        host.strip_suffix(b".").unwrap_or(host)
    }

    pub(super) fn path(&self) -> &'a [u8] {
        self.head.path(self.bytes)
    }

    pub(super) fn method(&self) -> &'a [u8] {
        self.head.method_bytes(self.bytes)
    }

    fn is_trusted(&self) -> bool {
        self.trusted_proxies.iter().any(|net| net.contains(self.peer))
    }

    /// The client's address: behind trusted proxies, the one that they report.
    pub fn client(&self) -> IpAddr {
        *self.client.get_or_init(|| match self.is_trusted() {
            true => forward::client_address(self.bytes, self.head, self.peer, self.trusted_proxies),
            false => self.peer,
        })
    }

    /// Where the client is.
    pub fn geography(&self) -> Geography {
        *self.geography.get_or_init(|| (self.look_up)(self.client()))
    }

    /// Values of the header field of this name (lower case), one for each line. What is not forwarded is not
    /// seen, and what a client may not say about itself neither.
    pub(super) fn header(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let bytes = self.bytes;
        let named = self
            .head
            .fields
            .iter()
            .filter(move |field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()));
        named
            .filter(|field| self.is_believed(field))
            .map(move |field| field.value.of(bytes))
    }

    fn is_believed(&self, field: &Field) -> bool {
        match field.kind {
            FieldKind::Dropped => false,
            FieldKind::Forwarded
            | FieldKind::XForwardedFor
            | FieldKind::XForwardedProto
            | FieldKind::XForwardedHost
            | FieldKind::Identity => self.is_trusted(),
            _ => true,
        }
    }

    /// Values of the cookie of this name.
    pub(super) fn cookie(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let bytes = self.bytes;
        let fields = self
            .head
            .fields
            .iter()
            .filter(|field| field.kind == FieldKind::Cookie);
        fields
            .flat_map(move |field| field.value.of(bytes).split(|&b| b == b';'))
            .filter_map(move |pair| value_of(trim(pair), name))
    }

    /// Values of the query parameter of this name, not decoded; the name is compared after decoding.
    pub(super) fn parameter(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let pairs = self
            .head
            .query(self.bytes)
            .unwrap_or_default()
            .split(|&b| b == b'&');
        pairs.filter_map(move |pair| {
            let mut parts = pair.splitn(2, |&b| b == b'=');
            let found = parts.next().unwrap_or_default();
            decoded(found)
                .eq(name.bytes())
                .then(|| parts.next().unwrap_or_default())
        })
    }

    pub(super) fn accept_language(&self) -> impl Iterator<Item = &'a [u8]> {
        self.header("accept-language")
    }
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    match pair.strip_prefix(name.as_bytes())? {
        [b'=', value @ ..] => Some(value),
        _ => None,
    }
}

/// The bytes that a part of a query stands for: percent-decoded, `+` as a space. What is no coding stands for
/// itself.
pub(super) fn decoded(text: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = text;
    std::iter::from_fn(move || {
        let hex = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        let (byte, after) = match rest {
            [] => return None,
            [b'%', high, low, after @ ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (b'%', rest.get(1..).unwrap_or_default()),
            },
            [b'+', after @ ..] => (b' ', after),
            [byte, after @ ..] => (*byte, after),
        };
        rest = after;
        Some(byte)
    })
}
