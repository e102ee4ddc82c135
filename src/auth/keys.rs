//! The keys that may vouch for a token: loaded once, all problems reported at once.

mod load;

use std::fmt;
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::algorithm::{Algorithm, Verifier};
use super::jwks::{Issuer, Line};
use super::token::Header;
use crate::config;

pub use super::mint::install_provider;
pub use load::KeyProblem;
pub(super) use load::{Flaw, Loaded, flaw_of, secret_file, unknown_algorithm};
use load::{check_prefix, load_entry, short_secret};

/// `iss` of the tokens that we mint for guests.
pub const SESSION_ISSUER: &str = "conclave-session";
/// How guests' user ids begin. No other key's token can yield such an id while guests may sign in.
pub const GUEST_PREFIX: &str = "guest:";
/// Signatures checked for one token: as many keys of one algorithm may be configured.
const KEYS_TRIED_MAX: usize = 16;
/// Where no configuration is at hand: `auth.jwks_waiting` and `auth.jwks_kids_per_address` as they are by default.
const JWKS_WAITING: usize = 2048;
const JWKS_KIDS_PER_ADDRESS: usize = 2;
/// The shortest secret for guests' tokens (HS256).
const SESSION_SECRET_BYTES_MIN: usize = 32;

/// Every key, ready to verify.
pub struct Keys {
    keys: Vec<Key>,
    /// Those whose keys come by URL, each once.
    issuers: Vec<Arc<Issuer>>,
    line: Arc<Line>,
    session_secret: Option<jsonwebtoken::EncodingKey>,
}

/// One key and whose tokens it vouches for.
pub(super) struct Key {
    verifier: Verifier,
    algorithm: Algorithm,
    kid: Option<Box<str>>,
    terms: Arc<Terms>,
}

/// What one `[[auth.keys]]` entry says about all of its keys.
pub(super) struct Terms {
    pub issuer: Option<String>,
    pub audience: Vec<String>,
    pub user_prefix: String,
    pub set_in: String,
    /// Guests' own.
    pub session: bool,
}

impl Keys {
    /// Reads every entry's file and prepares its keys.
    ///
    /// # Errors
    /// All problems of all entries.
    pub fn load(entries: &[config::Key]) -> Result<Self, Vec<KeyProblem>> {
        Self::load_with(entries, Line::new(JWKS_WAITING, JWKS_KIDS_PER_ADDRESS))
    }

    fn load_with(entries: &[config::Key], line: Line) -> Result<Self, Vec<KeyProblem>> {
        let (mut keys, mut problems) = (Self::empty(line), Vec::new());
        for entry in entries {
            if let Err(flaw) = keys.add_entry(entry) {
                problems.push(flaw.at(&entry.set_in));
            }
        }
        problems.extend(keys.too_many());
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    fn empty(line: Line) -> Self {
        Self {
            keys: Vec::new(),
            issuers: Vec::new(),
            line: Arc::new(line),
            session_secret: None,
        }
    }

    /// As `load`, and with `[session] enabled` the guests' key too: the configured secret or a random one.
    ///
    /// # Errors
    /// All problems of all entries.
    pub fn from_config(config: &config::Config) -> Result<Self, Vec<KeyProblem>> {
        let line = Line::new(config.auth.jwks_waiting, config.auth.jwks_kids_per_address);
        let mut keys = Self::load_with(&config.auth.keys, line)?;
        if config.session.enabled {
            match &config.session.secret {
                Some(secret) => keys.add_session(secret.expose_secret().as_bytes()),
                None => keys.add_random_session(),
            }
            .map_err(|problem| vec![problem])?;
        }
        Ok(keys)
    }

    /// Lets guests sign in with tokens signed by `secret`.
    ///
    /// # Errors
    /// A secret shorter than 32 bytes.
    pub fn add_session(&mut self, secret: &[u8]) -> Result<(), KeyProblem> {
        let set_in = "session.secret";
        if secret.len() < SESSION_SECRET_BYTES_MIN {
            return Err(short_secret(SESSION_SECRET_BYTES_MIN).at(set_in));
        }
        let algorithm = Algorithm::HS256;
        let verifier =
            Verifier::from_secret(algorithm, secret).map_err(|unfit| flaw_of(unfit, algorithm).at(set_in))?;
        let terms = Terms {
            issuer: Some(SESSION_ISSUER.into()),
            audience: Vec::new(),
            user_prefix: String::new(),
            set_in: set_in.into(),
            session: true,
        };
        self.keys.push(Key {
            verifier,
            algorithm,
            kid: Some(SESSION_ISSUER.into()),
            terms: Arc::new(terms),
        });
        self.session_secret = Some(jsonwebtoken::EncodingKey::from_secret(secret));
        Ok(())
    }

    fn add_random_session(&mut self) -> Result<(), KeyProblem> {
        let mut secret = [0; 48];
        aws_lc_rs::rand::fill(&mut secret)
            .map_err(|_| Flaw::new("the system gave no random bytes", "set session.secret").at("session.secret"))?;
        self.add_session(&secret)
    }

    fn add_entry(&mut self, entry: &config::Key) -> Result<(), Flaw> {
        check_prefix(entry)?;
        let terms = Arc::new(Terms {
            issuer: entry.issuer.clone(),
            audience: entry.audience.clone(),
            user_prefix: entry.user_prefix.clone(),
            set_in: entry.set_in.clone(),
            session: false,
        });
        if let config::KeySource::JwksUrl(url) = &entry.source {
            let issuer = Issuer::new(url, terms, Arc::clone(&self.line))?;
            self.issuers.push(Arc::new(issuer));
            return Ok(());
        }
        let loaded = load_entry(entry)?;
        self.keys.extend(loaded.into_iter().map(
            |Loaded {
                 algorithm,
                 kid,
                 verifier,
             }| Key {
                verifier,
                algorithm,
                kid: kid.or_else(|| entry.kid.clone()).map(Into::into),
                terms: Arc::clone(&terms),
            },
        ));
        Ok(())
    }

    /// A token without `kid` is tried with every key of its algorithm, so their number bounds what a refusal costs.
    fn too_many(&self) -> impl Iterator<Item = KeyProblem> {
        Algorithm::ALL.into_iter().filter_map(|algorithm| {
            let mut same = self.keys.iter().filter(|key| key.algorithm == algorithm);
            let one_more = same.nth(KEYS_TRIED_MAX)?;
            let what = format!("more than {KEYS_TRIED_MAX} keys for {}", algorithm.as_str());
            Some(Flaw::new(what, "remove keys that no longer sign").at(&one_more.terms.set_in))
        })
    }

    /// Keys of our own configuration that may have signed a token with this header.
    pub(super) fn candidates<'k>(&'k self, header: &'k Header) -> impl Iterator<Item = &'k Key> {
        fitting(self.keys.iter(), header)
    }

    /// Whose keys come by URL, if `iss` names one. It only selects among those that are configured.
    pub(super) fn issuer(&self, iss: Option<&str>) -> Option<&Arc<Issuer>> {
        let iss = iss.filter(|_| !self.issuers.is_empty())?;
        self.issuers.iter().find(|issuer| issuer.name() == iss)
    }

    pub(super) fn issuers(&self) -> &[Arc<Issuer>] {
        &self.issuers
    }

    /// Where sign-ins wait for those.
    pub(super) fn line(&self) -> &Arc<Line> {
        &self.line
    }

    pub(super) fn all(&self) -> &[Key] {
        &self.keys
    }

    /// Whether guests may sign in.
    pub fn have_session(&self) -> bool {
        self.session_secret.is_some()
    }

    pub(super) fn session_secret(&self) -> Option<&jsonwebtoken::EncodingKey> {
        self.session_secret.as_ref()
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::empty(Line::new(JWKS_WAITING, JWKS_KIDS_PER_ADDRESS))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls = self
            .issuers
            .iter()
            .map(|issuer| format!("keys of {:?} by URL", issuer.name()));
        f.debug_list()
            .entries(self.keys.iter().map(Key::describe).chain(urls))
            .finish()
    }
}

/// Those of `keys` that may have signed a token with this header: those of its name, else those without a name.
pub(super) fn fitting<'k>(
    keys: impl Iterator<Item = &'k Key> + Clone,
    header: &'k Header,
) -> impl Iterator<Item = &'k Key> {
    let kid = header.kid.as_deref();
    let named = kid.is_some() && keys.clone().any(|key| key.kid() == kid);
    keys.filter(move |key| key.algorithm.as_str() == header.alg)
        .filter(move |key| kid.is_none() || key.kid() == kid.filter(|_| named))
        .take(KEYS_TRIED_MAX)
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

impl Key {
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// One that an issuer serves.
    pub fn of_issuer(loaded: Loaded, terms: &Arc<Terms>) -> Self {
        Self {
            verifier: loaded.verifier,
            algorithm: loaded.algorithm,
            kid: loaded.kid.map(Into::into),
            terms: Arc::clone(terms),
        }
    }

    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.verifier.verify(message, signature)
    }

    /// `ES256 key "2026-a" (conclave.toml:12)`
    pub fn describe(&self) -> String {
        let kid = self.kid().map_or("without kid".into(), |kid| format!("{kid:?}"));
        format!("{} key {kid} ({})", self.algorithm.as_str(), self.terms.set_in)
    }
}

#[cfg(test)]
mod tests;
