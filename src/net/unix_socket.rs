//! `server.listen = "unix:…"`: a socket in the file system, for a proxy on this machine.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::listener::BACKLOG;

/// Why no socket is there.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    #[error("{0} is in use by another process: stop it, or choose another path")]
    InUse(PathBuf),
    #[error("{0} is there and no socket: remove it, or choose another path")]
    NoSocket(PathBuf),
    #[error("cannot listen on {0}: {1}")]
    Other(PathBuf, io::Error),
}

/// Opens a socket at `path`, which may be used by whom `mode` says. One that nobody listens on any more is replaced.
///
/// # Errors
/// Somebody listens there, it is something else, or the folder does not let us.
pub fn listen(path: &Path, mode: u32) -> Result<UnixListener, UnixError> {
    let other = |error| UnixError::Other(path.to_owned(), error);
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(other(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(UnixError::NoSocket(path.to_owned())),
        Ok(_) => match connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(other)?;
            }
            // Also when its queue is full: then it lives.
            _ => return Err(UnixError::InUse(path.to_owned())),
        },
    }
    open(path, mode).map_err(other)
}

/// Does not wait where the queue of whoever listens is full.
fn connect(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}

fn open(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Nobody can connect before `listen`, so nobody can before the mode holds.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_dead_socket_is_replaced_and_a_living_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.sock");
        let first = listen(&path, 0o660).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(matches!(listen(&path, 0o660), Err(UnixError::InUse(_))));
        drop(first);
        let _second = listen(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "mine").unwrap();
        assert!(matches!(listen(&path, 0o660), Err(UnixError::NoSocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
        assert!(matches!(
            listen(&folder.path().join("no/c.sock"), 0o660),
            Err(UnixError::Other(..))
        ));
    }
}
