//! The handshake of WebSocket over HTTP/1.1 (RFC 6455 section 4), which a proxy makes itself where the other side
//! speaks HTTP/2 and so has none (RFC 8441 section 5).
//!
//! It proves that who answers has understood the question. It is no protection, and SHA-1 in it no weakness.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// The field in which a client sends its key.
pub const KEY_FIELD: &str = "Sec-WebSocket-Key";
/// The field in which a server proves that it has read the key.
pub const ACCEPT_FIELD: &str = "Sec-WebSocket-Accept";
/// What is asked for by `Upgrade` and `:protocol`.
pub const PROTOCOL: &str = "websocket";

/// What a server appends to the key before it hashes it (RFC 6455 section 1.3).
const SERVER: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key: sixteen random bytes, chosen anew for each handshake (RFC 6455 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key([u8; 16]);

impl Key {
    /// The key of these random bytes.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }

    /// Reads a field's value; `None` unless it is sixteen bytes in base64.
    pub fn read(value: &[u8]) -> Option<Self> {
        let bytes = STANDARD.decode(value).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// The key as it stands in its field.
    pub fn text(self) -> [u8; 24] {
        let mut text = [0; 24];
        // Sixteen bytes are always twenty-four characters.
        let _ = STANDARD.encode_slice(self.0, &mut text);
        text
    }

    /// What the server answers to it (RFC 6455 section 4.2.2).
    pub fn accept(self) -> [u8; 28] {
        let hash = Sha1::new().chain_update(self.text()).chain_update(SERVER);
        let mut text = [0; 28];
        // Twenty bytes are always twenty-eight characters.
        let _ = STANDARD.encode_slice(hash.finalize(), &mut text);
        text
    }
}
