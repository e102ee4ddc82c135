//! Reading the files that a configuration names, and saying in words why one cannot be read.

use std::io::{self, ErrorKind};
use std::path::Path;

use secrecy::SecretString;

/// Reads a whole file.
///
/// # Errors
/// What is wrong, as a clause that names the path.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| describe(path, &error))
}

/// Reads a secret: the bytes of the file without one trailing newline.
///
/// # Errors
/// What is wrong, as a clause that names the path and nothing of its content.
pub fn read_secret(path: &Path) -> Result<SecretString, String> {
    let text = String::from_utf8(read(path)?).map_err(|_| format!("not text: {}", path.display()))?;
    let text = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
    Ok(SecretString::from(text))
}

/// What is wrong with a file that could not be read.
pub fn describe(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => format!("file not found: {path}"),
        ErrorKind::PermissionDenied => format!("this user may not read {path}"),
        ErrorKind::IsADirectory => format!("a directory, not a file: {path}"),
        _ => format!("cannot read {path}: {error}"),
    }
}

/// Who else may read a file, besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    Nobody,
    Group,
    World,
}

/// Whether this process could change who reads it.
#[cfg(unix)]
fn is_ours(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == metadata.uid())
}

/// Who else may read `path`; nobody where the system has no such modes.
pub fn readers(path: &Path) -> Readers {
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path) {
        use std::os::unix::fs::PermissionsExt;
        let mode = metadata.permissions().mode();
        return match (mode & 0o004 != 0, mode & 0o040 != 0) {
            (true, _) => Readers::World,
            // A file that another user gives us through its group (a secret volume, ssl-cert) must be readable by it.
            (_, true) if is_ours(&metadata) => Readers::Group,
            _ => Readers::Nobody,
        };
    }
    Readers::Nobody
}

/// Whether this process may write files into a folder: one is written and removed, since modes do not tell (a volume
/// may be read-only, root may do everything).
pub fn is_writable(folder: &Path) -> bool {
    let probe = folder.join(format!(".conclave-{}", std::process::id()));
    let is_written = std::fs::File::create_new(&probe).is_ok();
    is_written && std::fs::remove_file(&probe).is_ok()
}
