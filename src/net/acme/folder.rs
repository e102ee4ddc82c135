//! What lasts of an account and its orders, as files that only their owner can read. Shared between nodes.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;

/// A long chain with its key.
const CERTIFICATE_BYTES: usize = 32 * 1024;

/// Names of files:
///
/// ```text
/// account-D.key          the account's key, PKCS #8; D stands for the directory
/// certificate-N.pem      key and chain; N stands for directory and domains
/// challenge-DOMAIN.pem   what the authority wants to see now
/// order-N.lock           locked by the node that orders
/// *.new, *.probe         for a moment, while something is written
/// ```
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    account: String,
    certificate: String,
    lock: String,
}

impl Folder {
    /// Another directory or other names have files of their own: a certificate for trials is never served in earnest.
    pub fn new(path: &Path, directory: &str, domains: &[String]) -> Self {
        let mut sorted = domains.to_vec();
        sorted.sort();
        let names = short_digest(&format!("{directory} {}", sorted.join(" ")));
        Self {
            path: path.to_owned(),
            account: format!("account-{}.key", short_digest(directory)),
            certificate: format!("certificate-{names}.pem"),
            lock: format!("order-{names}.lock"),
        }
    }

    /// Key and chain, in one file.
    pub fn certificate(&self) -> PathBuf {
        self.path.join(&self.certificate)
    }

    /// What answers the challenge for `domain`, which must be a name that was checked.
    pub fn challenge(&self, domain: &str) -> PathBuf {
        self.path.join(format!("challenge-{domain}.pem"))
    }

    /// None: another node, or another process of this one, has it. It is given back when dropped, or when the process
    /// ends in whatever way.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub async fn lock(&self) -> io::Result<Option<File>> {
        let path = self.path.join(&self.lock);
        aside(move || {
            let file = private(&path, false)?;
            match file.try_lock() {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(error)) => Err(error),
            }
        })
        .await
    }

    /// The account's key; `make` makes one where there is none.
    ///
    /// # Errors
    /// It can be neither read nor kept.
    pub async fn account_key(&self, make: impl FnOnce() -> Vec<u8> + Send + 'static) -> io::Result<Vec<u8>> {
        let path = self.path.join(&self.account);
        aside(move || match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = make();
                write(&path, &key)?;
                Ok(key)
            }
            read => read,
        })
        .await
    }

    /// Whether a certificate could be kept: by writing as much as one has.
    ///
    /// # Errors
    /// It could not: a full disk, a folder that became read-only.
    pub async fn probe(&self) -> io::Result<()> {
        let path = self.certificate().with_extension("probe");
        aside(move || {
            let written = write(&path, &vec![b'\n'; CERTIFICATE_BYTES]);
            let removed = std::fs::remove_file(&path);
            written.and(removed)
        })
        .await
    }

    /// # Errors
    /// The folder cannot be written to.
    pub async fn store_certificate(&self, pem: String) -> io::Result<()> {
        let path = self.certificate();
        aside(move || write(&path, pem.as_bytes())).await
    }

    /// # Errors
    /// The folder cannot be written to.
    pub async fn store_challenge(&self, domain: &str, pem: String) -> io::Result<()> {
        let path = self.challenge(domain);
        aside(move || write(&path, pem.as_bytes())).await
    }

    /// Nobody is to be answered any more.
    pub async fn remove_challenge(&self, domain: &str) {
        let path = self.challenge(domain);
        // One that stays answers a challenge that is over.
        let _ = aside(move || std::fs::remove_file(path)).await;
    }
}

/// Makes the folder, for its owner alone, where there is none.
///
/// # Errors
/// Its parent is not there, or not ours.
pub fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Folders may be on a network: no runtime waits for one.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Whole or not at all, and on the disk before it is told of: beside, then renamed.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = private(&beside, true)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&beside, path)
}

fn private(path: &Path, truncate: bool) -> io::Result<File> {
    File::options()
        .create(true)
        .write(true)
        .truncate(truncate)
        .mode(0o600)
        .open(path)
}

fn short_digest(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}
