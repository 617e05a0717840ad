//! Changes of a head on its way to a backend. They are made on a copy, so that logs, keys and the answer to the
//! client go by what the client sent.

use model::reason::Reason;

use super::RequestHead;
use crate::fields;
use crate::message::Framing;
use crate::target;

impl RequestHead {
    /// Becomes a copy of `other`, keeping the capacity of its own vectors.
    pub fn copy_from(&mut self, other: &Self) {
        let mut fields = std::mem::take(&mut self.fields);
        let mut rewritten = std::mem::take(&mut self.rewritten);
        let mut sent_host = std::mem::take(&mut self.sent_host);
        fields.clear();
        fields.extend_from_slice(&other.fields);
        rewritten.clear();
        rewritten.extend_from_slice(&other.rewritten);
        sent_host.clear();
        sent_host.extend_from_slice(&other.sent_host);
        *self = Self {
            fields,
            rewritten,
            sent_host,
            ..*other
        };
    }

    /// Takes another target in origin form, which is brought into its normal form.
    ///
    /// # Errors
    /// [`Reason::BadTarget`] and [`Reason::BadPath`], as for a target that a client sends; the head is of no use
    /// then.
    pub fn set_target(&mut self, new: &[u8]) -> Result<(), Reason> {
        target::check(new)?;
        if new.first() != Some(&b'/') {
            return Err(Reason::BadTarget);
        }
        self.rewritten.clear();
        self.path_len = target::normalise(new, &mut self.rewritten)?;
        Ok(())
    }

    /// Takes another host to ask for; [`RequestHead::host`] stays what the client asked. The caller answers for
    /// it being one.
    pub fn set_host(&mut self, host: &[u8]) {
        self.sent_host.clear();
        self.sent_host.extend_from_slice(host);
    }

    /// The host to name to the backend.
    pub fn host_to_send<'a>(&'a self, buf: &'a [u8]) -> &'a [u8] {
        match self.sent_host.as_slice() {
            [] => self.host(buf),
            host => host,
        }
    }

    /// Takes away all fields of this name that would be forwarded as they stand.
    pub fn drop_fields(&mut self, buf: &[u8], name: &str) {
        fields::drop_named(buf, &mut self.fields, name.as_bytes());
    }

    /// Says that the body is here whole, of this length, so that nobody is asked for it.
    pub fn set_whole_body(&mut self, length: u64) {
        self.framing = Framing::Length(length);
        self.expect_continue = false;
    }
}
