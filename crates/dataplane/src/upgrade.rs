//! What a request asks to switch to, and whether it may.

use http::forward::Upgrade;
use http::{Framing, RequestHead, websocket};
use model::config::Listener;

use crate::shard::Shard;

/// What the client asks to switch to. Who asks over HTTP/2 has no key for WebSocket's handshake.
pub(crate) fn of<'a>(shard: &Shard, head: &RequestHead, bytes: &'a [u8]) -> Option<Upgrade<'a>> {
    let protocol = head.upgrade(bytes)?;
    let needs_key = head.extended_connect && protocol.eq_ignore_ascii_case(websocket::PROTOCOL.as_bytes());
    let key = needs_key.then(|| {
        let mut rng = shard.rng.borrow_mut();
        let random = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64());
        websocket::Key::new(random.to_be_bytes())
    });
    Some(Upgrade { protocol, key })
}

/// Whether a client of this listener may switch to `protocol`. A body would have to end before the tunnel begins, and
/// no protocol in use needs one.
pub(crate) fn is_allowed(listener: &Listener, head: &RequestHead, protocol: &[u8]) -> bool {
    let mut allowed = listener.upgrades.iter();
    allowed.any(|known| known.as_bytes().eq_ignore_ascii_case(protocol))
        && matches!(head.framing, Framing::None)
}
