//! A socket that is upgraded only to be told why it may not stay: browsers cannot read a refused handshake.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::protocol::close::Close;
use crate::protocol::server;
use crate::websocket::encoded::Frame;
use crate::websocket::frame::ends_in_close;

/// PROTOCOL section 1 gives such a connection two seconds; a little is left for the way down.
const LINGER: Duration = Duration::from_millis(1_800);

/// Discarded at a time while the peer reads why.
const DISCARD_BYTES: usize = 512;

/// Sends the close (and `closing` before one that says come back), reads and discards until the peer has
/// gone, and drops the stream, all within 2 s.
///
/// # Cancel safety
/// Dropping the future drops the stream.
pub async fn turn_away<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    close: Close,
    reconnect_after_ms: Option<u64>,
) {
    let mut frames = Vec::new();
    if let Some(reconnect_after_ms) = reconnect_after_ms {
        let closing = server::Closing {
            reason: close.reason,
            reconnect_after_ms,
        };
        frames.extend_from_slice(Frame::text(|out| closing.write(out)).bytes());
    }
    frames.extend_from_slice(Frame::close(close.code, close.reason).bytes());
    // A peer that does not read, or has gone, is let go either way.
    drop(timeout(LINGER, tell(&mut stream, &frames)).await);
}

async fn tell<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, frames: &[u8]) -> io::Result<()> {
    stream.write_all(frames).await?;
    stream.flush().await?;
    let mut discarded = [0; DISCARD_BYTES];
    loop {
        let read = stream.read(&mut discarded).await?;
        if read == 0 {
            return Ok(());
        }
        if ends_in_close(&discarded[..read]) {
            break;
        }
    }
    stream.shutdown().await
}
