//! TLS of one listener: its certificates, who may come, and what changes of these while it serves.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use model::config::{self, Certificate, Pem, PrivateKey};
use model::state::Timestamp;
use model::status::CertificateStatus;
use rustls::server::danger::ClientCertVerifier;
use tls::{ChallengeStore, LoadError, Loaded, Resolver, ServerSettings, Stamp, Tickets};

use super::now_s;

/// What certificates that are ordered need.
#[derive(Debug, Clone)]
pub(crate) struct ManagedFiles {
    /// Where the listener's own stands, key and chain in one file; `None` when none is ordered for it.
    pub(crate) path: Option<PathBuf>,
    pub(crate) challenges: Arc<ChallengeStore>,
}

fn in_one_file(path: &Path) -> Certificate {
    Certificate {
        cert: Pem::File(path.to_owned()),
        key: PrivateKey::File(path.to_owned()),
        ocsp: None,
    }
}

/// TLS of a listener, shared by all shards and by successive configs in which it does not change.
#[derive(Debug)]
pub(crate) struct ListenerTls {
    pub(crate) settings: config::ListenerTls,
    resolver: Arc<Resolver>,
    /// `None`: it cannot be said who may come, so nobody may.
    server: RwLock<Option<ServerSettings>>,
    /// For whoever looks after the files.
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) certificates: Vec<Slot>,
    pub(crate) clients: Option<Clients>,
    tickets: Option<Tickets>,
}

/// A certificate as configured, with what is shown for it.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    pub(crate) label: String,
    source: Certificate,
    /// The names of a certificate that is ordered: until it comes, a placeholder is shown.
    ordered_for: Option<Vec<String>>,
    /// `None`: it could never be read.
    pub(crate) loaded: Option<Arc<Loaded>>,
    /// Why what is in the files now is not shown.
    pub(crate) error: Option<String>,
    pub(crate) files: Watched,
    /// How often what came could not be used.
    pub(crate) refused: u64,
    /// Days before its end that were last warned of.
    pub(crate) warned_days: Option<i64>,
    /// Whether it was told that the OCSP response is out of date.
    pub(crate) told_stale: bool,
}

/// Who may show which client certificates.
#[derive(Debug, Clone)]
pub(crate) struct Clients {
    pub(crate) source: config::ClientCertificates,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    pub(crate) error: Option<String>,
    pub(crate) files: Watched,
    pub(crate) refused: u64,
}

/// Files and when they count as changed: when two looks agree, so that half-written ones are let be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    taken: Stamp,
    candidate: Option<Stamp>,
}

impl Watched {
    pub(crate) fn new(stamp: Stamp) -> Self {
        Self {
            taken: stamp,
            candidate: None,
        }
    }

    /// One look; true when the files have changed and settled.
    pub(crate) fn look(&mut self, stamp: Stamp) -> bool {
        if stamp == self.taken {
            self.candidate = None;
            return false;
        }
        if self.candidate.as_ref() == Some(&stamp) {
            *self = Self::new(stamp);
            return true;
        }
        self.candidate = Some(stamp);
        false
    }
}

impl ListenerTls {
    /// Reads what the settings name. What cannot be read is taken from `previous` where that has it, and left
    /// out otherwise: see [`ListenerTls::problems`].
    pub(crate) fn load(
        settings: &config::ListenerTls,
        managed: &ManagedFiles,
        previous: Option<&Self>,
        protocols: &[&[u8]],
    ) -> Self {
        let before = previous.map(Self::state);
        let known = |source: &Certificate| {
            let slots = before.iter().flat_map(|state| &state.certificates);
            slots.into_iter().find(|slot| slot.source == *source).cloned()
        };
        let ordered = settings.acme.iter().zip(&managed.path);
        let ordered = ordered.map(|(acme, path)| (in_one_file(path), Some(acme.domains.clone())));
        let own = settings.certificates.iter().map(|source| (source.clone(), None));
        let certificates = own
            .chain(ordered)
            .enumerate()
            .map(|(index, (source, ordered_for))| {
                let slot = known(&source).unwrap_or_else(|| Slot::new(&source, index + 1));
                Slot { ordered_for, ..slot }.load()
            });
        let certificates: Vec<Slot> = certificates.collect();
        let before_clients = before.as_ref().and_then(|state| state.clients.clone());
        let clients = settings.client_certificates.as_ref().map(|source| {
            let known = before_clients.filter(|c| c.source == *source);
            known.unwrap_or_else(|| Clients::new(source)).load()
        });
        // Sessions stay resumable only while the same clients may come.
        let same_clients = previous.is_some_and(|p| {
            p.settings.client_certificates == settings.client_certificates
                && p.settings.min_version == settings.min_version
                && settings.client_certificates.is_none()
        });
        let kept = before
            .as_ref()
            .filter(|_| same_clients)
            .and_then(|s| s.tickets.clone());
        drop(before);
        let tls = Self {
            settings: settings.clone(),
            resolver: Arc::new(Resolver::new(managed.challenges.clone())),
            server: RwLock::new(None),
            state: Mutex::new(State {
                certificates,
                clients,
                tickets: kept,
            }),
        };
        tls.show();
        tls.serve(protocols);
        tls
    }

    /// What a new connection is served with; `None`: it is not.
    pub(crate) fn server(&self) -> Option<ServerSettings> {
        self.server.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether clients are asked for certificates.
    pub(crate) fn asks_clients(&self) -> bool {
        self.settings.client_certificates.is_some()
    }

    /// Whether a request for `host` must not be answered on a connection that was opened for `sni`: that name has
    /// other certificates, or clients had to show theirs for this name and no other (RFC 9110 section 15.5.20).
    /// Both names are in lower case.
    pub(crate) fn is_misdirected(&self, sni: &str, host: &str) -> bool {
        self.asks_clients() || !self.resolver.are_alike(sni, host)
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The certificates as `status` shows them.
    pub(crate) fn status(&self) -> Vec<CertificateStatus> {
        let status = |slot: &Slot| CertificateStatus {
            name: slot.label.clone(),
            hosts: slot
                .loaded
                .as_ref()
                .map_or_else(Vec::new, |loaded| loaded.names.clone()),
            expires: slot.loaded.as_ref().map(|loaded| {
                let end_s = u64::try_from(loaded.not_after).unwrap_or(0);
                Timestamp(end_s.saturating_mul(1000))
            }),
            error: slot.error.clone(),
        };
        self.state().certificates.iter().map(status).collect()
    }

    /// What hinders serving as the settings say.
    pub(crate) fn problems(&self) -> Vec<String> {
        let state = self.state();
        let slots = state.certificates.iter().filter(|slot| slot.loaded.is_none());
        let slots = slots.filter_map(|slot| slot.error.clone());
        let clients = state.clients.iter().filter(|c| c.verifier.is_none());
        slots.chain(clients.filter_map(|c| c.error.clone())).collect()
    }

    /// Shows what is loaded, from the next handshake on.
    pub(crate) fn show(&self) {
        let state = self.state();
        let loaded: Vec<_> = state
            .certificates
            .iter()
            .filter_map(|s| s.loaded.clone())
            .collect();
        self.resolver.set(&loaded);
    }

    /// Makes the server's settings anew: other clients may come.
    pub(crate) fn serve(&self, protocols: &[&[u8]]) {
        let made = self.make_server(protocols);
        if let Err(error) = &made {
            tracing::error!(%error, "a listener with TLS cannot serve");
        }
        *self.server.write().unwrap_or_else(PoisonError::into_inner) = made.ok();
    }

    fn make_server(&self, protocols: &[&[u8]]) -> Result<ServerSettings, LoadError> {
        let mut state = self.state();
        let verifier = match &state.clients {
            None => None,
            Some(Clients {
                verifier: Some(verifier),
                ..
            }) => Some(verifier.clone()),
            Some(clients) => return Err(LoadError(clients.error.clone().unwrap_or_default())),
        };
        let tickets = match state.tickets.take() {
            Some(tickets) => tickets,
            None => Tickets::new(tls::TICKET_KEY_LIFE)?,
        };
        let tickets = state.tickets.insert(tickets);
        ServerSettings::new(
            &self.settings,
            self.resolver.clone(),
            verifier,
            tickets,
            protocols,
        )
    }

    /// Changes the keys of tickets when it is time.
    pub(crate) fn refresh_tickets(&self) {
        if let Some(tickets) = &self.state().tickets {
            tickets.refresh();
        }
    }

    /// Forgets the keys of tickets: what was verified before no longer counts.
    pub(crate) fn end_sessions(&self) {
        self.state().tickets = None;
    }
}

impl Slot {
    fn new(source: &Certificate, place: usize) -> Self {
        Self {
            label: source.label(place),
            source: source.clone(),
            ordered_for: None,
            loaded: None,
            error: None,
            files: Watched::default(),
            refused: 0,
            warned_days: None,
            told_stale: false,
        }
    }

    /// Its files as they are now.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::of(&tls::files_of_certificate(&self.source))
    }

    /// Reads it; what cannot be used leaves what is there.
    pub(crate) fn load(mut self) -> Self {
        let stamp = self.stamp();
        self.error = self.replace().err();
        self.files = Watched::new(stamp);
        self
    }

    fn is_there(&self) -> bool {
        matches!(&self.source.cert, Pem::File(path) if path.exists())
    }

    /// Reads it and takes it, unless it would be worse than what is there.
    pub(crate) fn replace(&mut self) -> Result<(), String> {
        let now_s = now_s();
        let new = match &self.ordered_for {
            Some(names) if !self.is_there() => tls::placeholder(names),
            _ => tls::load(&self.source, now_s),
        };
        let new = new.map_err(|error| error.to_string())?;
        if let (Some(old), Some(why)) = (&self.loaded, new.invalid_at(now_s))
            && old.invalid_at(now_s).is_none()
        {
            return Err(format!("{}: {why}, while the one before is valid", self.label));
        }
        self.loaded = Some(Arc::new(new));
        Ok(())
    }
}

impl Clients {
    fn new(source: &config::ClientCertificates) -> Self {
        Self {
            source: source.clone(),
            verifier: None,
            error: None,
            files: Watched::default(),
            refused: 0,
        }
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::of(&tls::files_of_clients(&self.source))
    }

    fn load(mut self) -> Self {
        let stamp = self.stamp();
        self.error = self.replace().err();
        self.files = Watched::new(stamp);
        self
    }

    pub(crate) fn replace(&mut self) -> Result<(), String> {
        let verifier = tls::client_verifier(&self.source).map_err(|error| error.to_string())?;
        self.verifier = Some(verifier);
        Ok(())
    }
}
