//! What protects the admin API: read before anything listens, so that a start without it never happens.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use console::{AuditLog, Counters, TlsPort};
use model::config::{Admin, AuditTo, Secret};

use crate::token;

/// What the console is protected with.
pub(crate) struct Doors {
    /// The token of `[admin]`.
    pub(crate) token: Option<Secret>,
    /// TLS, where it is configured.
    pub(crate) tls: Option<Arc<TlsPort>>,
    /// What is counted about who asks.
    pub(crate) counters: Arc<Counters>,
    /// The audit log, once it is open.
    pub(crate) audit: Option<Arc<AuditLog>>,
}

impl Doors {
    /// Reads the files that `admin` names.
    ///
    /// # Errors
    /// When one cannot be read, or is not what it should be.
    pub(crate) fn open(admin: &Admin) -> anyhow::Result<Self> {
        let token = match &admin.token_file {
            Some(path) => Some(Secret::new(token::read(path).context("admin.token_file")?)),
            None => admin.token.clone(),
        };
        let tls = admin.tls.clone().map(TlsPort::load).transpose();
        Ok(Self {
            token,
            tls: tls.context("admin.tls")?.map(Arc::new),
            counters: Arc::default(),
            audit: None,
        })
    }

    /// Opens the audit log. Root must have been given up: the file belongs to whoever writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn keep_records(&mut self, to: &AuditTo, in_data_dir: PathBuf) -> anyhow::Result<()> {
        let path = match to {
            AuditTo::DataDir => in_data_dir,
            AuditTo::File(path) => path.clone(),
            AuditTo::Off => return Ok(()),
        };
        let opened = AuditLog::open(path.clone(), self.counters.clone());
        let log = opened
            .with_context(|| format!("cannot write the audit log {} (admin.audit_log)", path.display()))?;
        self.audit = Some(Arc::new(log));
        Ok(())
    }
}
