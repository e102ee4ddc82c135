//! One order, from the account to the chain.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::ClientConfig;
use rustls_acme::acme::{self, Account, AcmeError, AuthStatus, ChallengeType, Directory, Identifier, OrderStatus};

use super::folder::Folder;
use crate::config;

/// Longest wait for one answer of the authority.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is made again because the authority has forgotten its nonce (RFC 8555 section 6.5).
const NONCES_MAX: usize = 5;
/// The first pause between two questions how something stands; they grow up to [`ASK_AGAIN_MAX`].
const ASK_AGAIN: Duration = Duration::from_millis(500);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(15);
/// Longest error text in a log line: authorities answer with whole documents.
const ERROR_CHARS_MAX: usize = 500;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    #[error("{step}: {error}")]
    Authority { step: &'static str, error: AcmeError },
    #[error("{0}: no answer in time")]
    Late(&'static str),
    #[error("the authority could not verify {domain}: {detail}")]
    Refused { domain: String, detail: String },
    #[error("the authority has ended the order: {0}")]
    Ended(String),
    #[error("acme.cache_dir: {0}")]
    Folder(#[from] io::Error),
    #[error("the new certificate cannot be used, or is due for renewal at once: is the clock of this machine right?")]
    Useless,
    #[error("a request could not be made: {0}")]
    Request(#[from] rcgen::Error),
}

impl OrderError {
    /// For a log line.
    pub fn short(&self) -> String {
        self.to_string().chars().take(ERROR_CHARS_MAX).collect()
    }
}

/// What an order needs.
pub struct Order<'a> {
    pub settings: &'a config::Acme,
    pub folder: &'a Folder,
    pub authority: &'a Arc<ClientConfig>,
}

impl Order<'_> {
    /// Key and chain, as PEM.
    ///
    /// # Errors
    /// Whatever kept the authority from giving one.
    pub async fn run(&self) -> Result<String, OrderError> {
        let account = self.account().await?;
        let domains = &self.settings.domains;
        let (url, mut order) = ask("newOrder", || account.new_order(self.authority, domains.clone())).await?;
        let (key, request) = self.request()?;
        let mut pause = ASK_AGAIN;
        loop {
            order = match order.status {
                OrderStatus::Pending => {
                    for authorization in &order.authorizations {
                        self.authorize(&account, authorization).await?;
                    }
                    ask("order", || account.order(self.authority, &url)).await?
                }
                OrderStatus::Ready => {
                    // The answer may be the order as it was before: how it stands is asked for.
                    ask("finalize", || {
                        account.finalize(self.authority, &order.finalize, &request)
                    })
                    .await?;
                    ask("order", || account.order(self.authority, &url)).await?
                }
                OrderStatus::Processing => {
                    wait(&mut pause).await;
                    ask("order", || account.order(self.authority, &url)).await?
                }
                OrderStatus::Valid { certificate } => {
                    let chain = ask("certificate", || account.certificate(self.authority, &certificate)).await?;
                    return Ok(format!("{}\n{chain}", key.serialize_pem()));
                }
                OrderStatus::Invalid => return Err(OrderError::Ended(detail(order.error))),
            };
        }
    }

    /// The account of the key in the folder; the authority makes one where it has none.
    async fn account(&self) -> Result<Account, OrderError> {
        let key = self.folder.account_key(Account::generate_key_pair).await?;
        let url = &self.settings.directory;
        let directory = ask("directory", || Directory::discover(self.authority, url)).await?;
        ask("newAccount", || {
            let directory = Directory {
                new_nonce: directory.new_nonce.clone(),
                new_account: directory.new_account.clone(),
                new_order: directory.new_order.clone(),
            };
            Account::create_with_keypair(self.authority, directory, &self.settings.contact, &key)
        })
        .await
    }

    /// A key that nobody has had before, and the request for its certificate.
    fn request(&self) -> Result<(KeyPair, Vec<u8>), OrderError> {
        let mut params = CertificateParams::new(self.settings.domains.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let request = params.serialize_request(&key)?.der().to_vec();
        Ok((key, request))
    }

    async fn authorize(&self, account: &Account, url: &str) -> Result<(), OrderError> {
        let authorization = ask("authorization", || account.auth(self.authority, url)).await?;
        let Identifier::Dns(domain) = &authorization.identifier;
        let domain = domain.to_ascii_lowercase();
        if matches!(authorization.status, AuthStatus::Valid) {
            return Ok(());
        }
        // The name of a file is made of it.
        let is_ours = self.settings.domains.contains(&domain);
        let challenge = (authorization.challenges.iter())
            .find(|challenge| is_ours && challenge.typ == ChallengeType::TlsAlpn01)
            .ok_or_else(|| OrderError::Refused {
                domain: domain.clone(),
                detail: "it offers no TLS-ALPN-01".to_owned(),
            })?;
        let pem = answer(&domain, &key_authorization(account, &challenge.token))?;
        self.folder.store_challenge(&domain, pem).await?;
        let verified = self.verified(account, url, &challenge.url, &domain).await;
        self.folder.remove_challenge(&domain).await;
        verified
    }

    /// Has the authority look, and waits for what it says.
    async fn verified(&self, account: &Account, url: &str, challenge: &str, domain: &str) -> Result<(), OrderError> {
        ask("challenge", || account.challenge(self.authority, challenge)).await?;
        let mut pause = ASK_AGAIN;
        loop {
            wait(&mut pause).await;
            let authorization = ask("authorization", || account.auth(self.authority, url)).await?;
            match authorization.status {
                AuthStatus::Valid => return Ok(()),
                AuthStatus::Pending => {}
                status => {
                    let said = authorization
                        .challenges
                        .into_iter()
                        .find_map(|challenge| challenge.error);
                    let detail = said.map_or_else(|| format!("{status:?}"), |said| detail(Some(said)));
                    return Err(OrderError::Refused {
                        domain: domain.to_owned(),
                        detail,
                    });
                }
            }
        }
    }
}

/// One request, again while the authority only minds its nonce.
async fn ask<T, F>(step: &'static str, request: impl Fn() -> F) -> Result<T, OrderError>
where
    F: Future<Output = Result<T, AcmeError>>,
{
    let mut tries = 0;
    loop {
        tries += 1;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, request()).await;
        match answer.map_err(|_| OrderError::Late(step))? {
            Ok(answer) => return Ok(answer),
            Err(error) if tries < NONCES_MAX && is_bad_nonce(&error) => {}
            Err(error) => return Err(OrderError::Authority { step, error }),
        }
    }
}

/// The crate keeps the answer's document as text only.
fn is_bad_nonce(error: &AcmeError) -> bool {
    error.to_string().contains("urn:ietf:params:acme:error:badNonce")
}

async fn wait(pause: &mut Duration) {
    tokio::time::sleep(*pause).await;
    *pause = (*pause * 2).min(ASK_AGAIN_MAX);
}

fn detail(problem: Option<acme::Problem>) -> String {
    let said = problem.and_then(|problem| problem.detail.or(problem.typ));
    said.unwrap_or_else(|| "it does not say why".to_owned())
}

/// The certificate that proves it (RFC 8737 section 3), with its key.
fn answer(domain: &str, authorization: &Digest) -> Result<String, OrderError> {
    let mut params = CertificateParams::new(vec![domain.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(authorization.as_ref())];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let certificate = params.self_signed(&key)?;
    Ok(format!("{}\n{}", key.serialize_pem(), certificate.pem()))
}

/// SHA-256 of the key authorization: the token and the thumbprint of the account's key (RFC 8555 section 8.1).
fn key_authorization(account: &Account, token: &str) -> Digest {
    let sha256 = |text: &str| digest::digest(&digest::SHA256, text.as_bytes());
    // An uncompressed point: one byte that says so, then X and Y.
    let (x, y) = account.key_pair.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    // RFC 7638 section 3: these members, in this order, without spaces.
    let thumbprint = sha256(&format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#));
    sha256(&format!("{token}.{}", URL_SAFE_NO_PAD.encode(thumbprint)))
}
