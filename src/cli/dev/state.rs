//! The folder that `dev` keeps between runs: private, written atomically, used by one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// Permission bits that would let somebody else plant a key.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The folder, locked until this is dropped so that two starts at once do not mix their files.
pub struct State {
    directory: PathBuf,
    _lock: File,
}

impl State {
    /// Creates (0700) and locks the folder.
    pub fn open(directory: PathBuf) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot create the state directory {}", directory.display()))?;
        refuse_if_writable_by_others(&directory)?;
        let path = directory.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot write to the state directory: {}", path.display()))?;
        lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Self { directory, _lock: lock })
    }

    /// Where `name` is kept.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The text of `name`; `None` when it is absent or unreadable, for then it is made anew.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.path(name)).ok()
    }

    /// Writes `name` (0600), whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        replace(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

fn refuse_if_writable_by_others(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    let mode = fs::metadata(directory)
        .with_context(|| format!("cannot read {shown}"))?
        .permissions()
        .mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        bail!(
            "the state directory {shown} can be written by other users\n  help: chmod 700 '{shown}', or set CONCLAVE_STATE_DIR to a folder of your own"
        );
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let next = path.with_extension("new");
    // A leftover of a killed run may have other permissions.
    match fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&next, path)
}
