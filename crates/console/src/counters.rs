//! What is counted about who asks, and what is written of it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use model::config::AdminRole;

use crate::login::Failure;

/// Counts over the life of the process.
#[derive(Debug, Default)]
pub struct Counters {
    no_credential: AtomicU64,
    wrong_token: AtomicU64,
    unknown_certificate: AtomicU64,
    limited: AtomicU64,
    needs_operator: AtomicU64,
    needs_admin: AtomicU64,
    handshakes_failed: AtomicU64,
    connections_refused: AtomicU64,
    answers_refused: AtomicU64,
    audit_written: AtomicU64,
    audit_failed: AtomicU64,
    audit_suppressed: AtomicU64,
}

impl Counters {
    pub(crate) fn fail(&self, failure: Failure) {
        let count = match failure {
            Failure::NoCredential => &self.no_credential,
            Failure::WrongToken => &self.wrong_token,
            Failure::UnknownCertificate => &self.unknown_certificate,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn limit(&self) {
        self.limited.fetch_add(1, Relaxed);
    }

    pub(crate) fn deny(&self, least: AdminRole) {
        let count = match least {
            AdminRole::Admin => &self.needs_admin,
            _ => &self.needs_operator,
        };
        count.fetch_add(1, Relaxed);
    }

    pub(crate) fn fail_handshake(&self) {
        self.handshakes_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn refuse_connection(&self) {
        self.connections_refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn refuse_answer(&self) {
        self.answers_refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn audit_written(&self) {
        self.audit_written.fetch_add(1, Relaxed);
    }

    pub(crate) fn audit_failed(&self) {
        self.audit_failed.fetch_add(1, Relaxed);
    }

    pub(crate) fn audit_suppressed(&self) {
        self.audit_suppressed.fetch_add(1, Relaxed);
    }

    /// Records of the audit log, by what became of them.
    pub fn audit_records(&self) -> [(&'static str, u64); 3] {
        [
            ("written", self.audit_written.load(Relaxed)),
            ("failed", self.audit_failed.load(Relaxed)),
            ("suppressed", self.audit_suppressed.load(Relaxed)),
        ]
    }

    /// Logins that failed, by why.
    pub fn failed_logins(&self) -> [(&'static str, u64); 4] {
        [
            ("no_credential", self.no_credential.load(Relaxed)),
            ("wrong_token", self.wrong_token.load(Relaxed)),
            ("unknown_certificate", self.unknown_certificate.load(Relaxed)),
            ("limited", self.limited.load(Relaxed)),
        ]
    }

    /// Requests whose sender's role was not enough, by the role that is needed.
    pub fn denied(&self) -> [(&'static str, u64); 2] {
        [
            ("operator", self.needs_operator.load(Relaxed)),
            ("admin", self.needs_admin.load(Relaxed)),
        ]
    }

    /// Connections closed at once because their source had as many as it may.
    pub fn refused_connections(&self) -> u64 {
        self.connections_refused.load(Relaxed)
    }

    /// Requests for answers about everything that found no turn in time.
    pub fn refused_answers(&self) -> u64 {
        self.answers_refused.load(Relaxed)
    }

    /// TLS handshakes that failed.
    pub fn failed_handshakes(&self) -> u64 {
        self.handshakes_failed.load(Relaxed)
    }
}
